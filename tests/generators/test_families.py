"""Diffusion families: one file each, from this package, an entry point, or an object at hand."""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import guided
from guided.errors import CannotDo, UnsafeWeights
from guided.generators.diffusion import families, load_diffusion, register
from guided.generators.diffusion.families import class_names, family_of
from tests.helpers import flow_family
from tests.helpers.small_models import stock
from tests.helpers.tiny_clip import write_clip

registry = importlib.import_module("guided.generators.diffusion.families")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flow_family.write_flow_folder(tmp_path_factory.mktemp("flow"))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", [])
    register(flow_family.FAMILY)


def plug_in(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings a family by entry point."""
    info = tmp_path / "flow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[guided.diffusion_families]\ntiny-flow = {value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def expected(folder: Path, prompt: str, cfg: float) -> np.ndarray[Any, Any]:
    """The image [16, 16, 3] that the denoiser's closed form stands for."""
    pipe: Any = load_diffusion(folder).pipe
    with torch.no_grad():
        batch = flow_family.PromptBatch([prompt], (), (16, 16), cfg=cfg)
        told = flow_family.FAMILY.encode_prompt(pipe, batch)
        net = pipe.transformer
        tokens = net.scale(told.pooled, told.guidance) * net.pattern
        latents = F.pixel_shuffle(tokens.T.reshape(1, 16, 4, 4), 2)
        signed = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    unit = (signed[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)
    return (255 * unit).round().numpy()


@pytest.mark.parametrize("given", [(), ("--cfg", 1.0)])
def test_a_family_from_outside_generates_from_the_command_line(
    given: tuple[Any, ...], guided_cli: Callable[..., Any], folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plug_in("tests.helpers.flow_family:FAMILY", tmp_path, monkeypatch)
    words = ["generate", "red", "a dog", "--method", "diffusion", "--steps", 3, "--json"]
    ran = guided_cli(*words, "--denoiser", f"local-dir:{folder}", "--out", tmp_path / "out", *given)
    assert ran.status == 0, ran.err
    images = []
    for row in ran.answer["results"]:
        with Image.open(row["image"]) as image:
            images.append(np.asarray(image.convert("RGB"), dtype=float))
        wanted = expected(folder, row["prompt"], given[1] if given else 3.5)
        assert np.abs(images[-1] - wanted).max() <= 1
    assert np.abs(images[0] - images[1]).max() > 3


def test_a_family_from_outside_is_guided_like_any(
    registered: None, guided_cli: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip")
    words = ["generate", "red", "--denoiser", f"local-dir:{folder}", "--steps", 3, "--json",
             "--scorer", f"local-dir:{clip}"]  # fmt: skip
    guide = ["--guide", "prompt", "--guide-scale", 0.5]
    plain = guided_cli(*words, "--out", tmp_path / "plain")
    steered = guided_cli(*words, *guide, "--out", tmp_path / "steered")
    assert plain.status == steered.status == 0, steered.err
    one, two = (Path(ran.answer["results"][0]["image"]).read_bytes() for ran in (plain, steered))
    assert one != two
    refused = guided_cli(*words, "--negative", "a cat", "--out", tmp_path / "refused")
    assert refused.status != 0
    assert "takes no negative prompt" in refused.err


def test_a_family_suits_the_scheduler_to_the_size(registered: None, folder: Path) -> None:
    model = load_diffusion(folder)
    shifts = [model.scheduler(size=size).shift for size in (None, (16, 16), (32, 16))]
    assert shifts == pytest.approx([math.e, math.e, math.e**2])


def test_without_its_family_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UnsafeWeights, match=r"FlowDenoiser as 'transformer'; allowed: PixArt"):
        load_diffusion(folder)


def test_a_registered_family_replaces_one_of_its_name(registered: None, folder: Path) -> None:
    class Other(flow_family.Flow):
        """Another family of the same name."""

    register(Other())
    assert [type(each) for each in families() if each.name == "tiny-flow"] == [Other]
    assert isinstance(load_diffusion(folder).family, Other)


def test_what_is_no_family_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotDo, match="The registered family is sd, which"):
        register("sd")  # type: ignore[arg-type]
    plug_in("tests.helpers.flow_family:Flow", tmp_path, monkeypatch)
    with pytest.raises(CannotDo, match=r"'tiny-flow' is <class .*Flow'>, which"):
        families()


def test_own_families_are_known_by_their_parts(tmp_path: Path) -> None:
    assert [each.name for each in families()] == ["pixart", "portrait", "sd", "sdxl"]
    for name in ("sd", "sdxl", "pixart"):
        parts = stock(name, tmp_path / name).components
        kinds = {key: class_names(part) for key, part in parts.items() if part is not None}
        assert family_of(kinds).name == name
        with pytest.raises(CannotDo, match=r"of no known family.*text_encoder_3"):
            family_of({**kinds, "text_encoder_3": ["transformers.T5EncoderModel"]})


def test_diffusion_is_one_generator_in_the_list(guided_cli: Callable[..., Any]) -> None:
    rows = [line.split()[0] for line in guided_cli("list", "generators").out.splitlines() if line]
    assert "diffusion" in rows
    assert "sd" not in rows


def test_nothing_outside_the_package_asks_which_family_it_is() -> None:
    root = Path(guided.__file__).parent
    names = {each.name for each in families()} - {"portrait"}
    for file in root.rglob("*.py"):
        if file.is_relative_to(root / "generators" / "diffusion"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                named = {each.value for each in sides if isinstance(each, ast.Constant)} & names
                asked = any("family" in ast.unparse(each).split(".") for each in sides)
                assert not named, (file, node.lineno)
                assert not asked, (file, node.lineno)
