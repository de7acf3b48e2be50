"""The policy of dtype and offload: which role runs in what, what is refused, who takes turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from guided.core import device as devices
from guided.core.offload import Offload, OffloadedModel
from guided.errors import CannotDo, GuidedError, RecipeError, UsageError
from guided.generators.diffusion import load_diffusion
from guided.generators.diffusion.vae import part_dtype
from guided.models.placement import Placement
from guided.recipe import Recipe
from guided.studio import load_run, run
from guided.studio.rerunning import _with_dtype_of
from tests.accelerator.simulated import accelerator
from tests.helpers import small_models
from tests.helpers.tiny_clip import write_clip

ROLES = ("denoiser", "language", "generator", "text_gan", "scorer", "identity", "prior")


@pytest.mark.parametrize(
    ("device", "dtype", "able", "wanted"),
    [
        ("cpu", None, True, ["fp32"] * 7),
        ("cuda", None, True, ["bf16"] * 2 + ["fp32"] * 5),
        ("cuda", None, False, ["fp16"] * 2 + ["fp32"] * 5),
        ("cuda", "fp32", True, ["fp32"] * 7),
        ("cuda", "bf16", True, ["bf16"] * 4 + ["fp32"] * 3),
        ("cpu", "bf16", True, ["bf16"] * 4 + ["fp32"] * 3),
    ],
)
def test_dtype_of_each_role(
    device: str, dtype: Any, able: bool, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "available", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device: able)
    placement = Placement(device, dtype)
    assert [placement.of(role).precision for role in ROLES] == wanted
    assert placement.told == {"dtype": wanted[0]}


def test_what_is_of_no_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="CPU computes fp16 many times slower") as refused:
        Placement("cpu", "fp16").of("denoiser")
    assert "--dtype bf16" in (refused.value.hint or "")
    monkeypatch.setattr(devices, "available", lambda: ["cuda", "cpu"])
    with pytest.raises(UsageError, match="overflow in fp16"):
        Placement("cuda", "fp16").of("text_gan")
    with pytest.raises(RecipeError, match=r"dtype = 'bf61'.*auto, fp32, bf16, fp16"):
        Recipe.of({"task": "score", "images": ["a.png"], "text": ["a"], "dtype": "bf61"})


def test_bf16_where_it_is_slow_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device: False)
    assert Placement("cpu", "bf16").of("denoiser").precision == "bf16"
    assert "many times slower" in caplog.text


def test_a_dtype_that_nothing_takes_is_refused(tmp_path: Path) -> None:
    clip = f"local-dir:{write_clip(tmp_path / 'clip')}"
    keys = {"task": "score", "images": ["a.png"], "text": ["a"], "scorer": clip, "dtype": "bf16"}
    with pytest.raises(GuidedError, match="score makes nothing that dtype = bf16") as refused:
        run(Recipe.of(keys), save=False).result()
    assert "--precision bf16" in (refused.value.hint or "")


def test_defaults_are_not_stored() -> None:
    keys = {"task": "score", "images": ["a.png"], "text": ["a"]}
    told = Recipe.of({**keys, "dtype": "auto", "offload": "none"})
    assert told == Recipe.of(keys)
    assert not {"dtype", "offload"} & told.data().keys()
    assert told.with_(dtype="fp16").with_(dtype="auto") == told
    assert Recipe.of({**keys, "offload": "model"}).data()["offload"] == "model"


def test_models_take_turns_and_stay_for_backward() -> None:
    with accelerator():
        one, two, three = (nn.Linear(3, 3).requires_grad_(False) for _ in range(3))
        turns = Offload(torch.device("cuda"))
        for each in (one, two, three):
            turns.manage(each)
        x = torch.ones(1, 3, device="cuda")
        plain = [model.resident for model in turns.models]
        assert plain == [False] * 3
        with torch.no_grad():
            three(two(one(x)))
        assert [model.resident for model in turns.models] == [False, False, True]
        given = x.clone().requires_grad_(True)
        loss = two(one(given)).sum()
        assert [model.resident for model in turns.models] == [True, True, False]
        (gradient,) = torch.autograd.grad(loss, given)
        wanted = (two.weight.sum(0) @ one.weight)[None]
        assert torch.allclose(gradient, wanted)
        del loss
        with torch.no_grad():
            three(x)
        assert [model.resident for model in turns.models] == [False, False, True]
        assert one.weight.device.type == "cpu"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("placement")
    return {
        "task": "generate", "prompts": ["a red hat"], "steps": 2, "size": [16, 16], "seed": 3,
        "denoiser": f"local-dir:{small_models.write_folder('sd', folder / 'sd')}",
        "scorer": f"local-dir:{write_clip(folder / 'clip')}", "guide": ["prompt"],
    }  # fmt: skip


def drawn(keys: dict[str, Any], device: str, **more: Any) -> Any:
    result = run(Recipe.of({**keys, "device": device, **more}), save=False, threads=1).result()
    return np.asarray(result.images[0]).astype(float)


def test_a_run_in_bf16_is_near_that_in_fp32(models: dict[str, Any]) -> None:
    one, two = (drawn(models, "cpu", dtype=each) for each in ("fp32", "bf16"))
    assert 0 < np.abs(one - two).mean() < 4


@pytest.mark.parametrize("jacobian", ["stop", "exact"])
def test_offloaded_models_draw_the_same(
    models: dict[str, Any], jacobian: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[set[str]] = []
    make_room = Offload.make_room

    def watched(self: Offload, wanted: OffloadedModel) -> None:
        make_room(self, wanted)
        there = [each for each in self.models if each.resident or each is wanted]
        together.append({type(each.module).__name__ for each in there})

    monkeypatch.setattr(Offload, "make_room", watched)
    keys = {**models, "jacobian": jacobian, "dtype": "fp32"}
    with accelerator() as device:
        plain, offloaded = (drawn(keys, "cuda", offload=each) for each in ("none", "model"))
    assert not device.products["cpu"]
    assert (plain == offloaded).all()
    unet, vae = "UNet2DConditionModel", "AutoencoderKL"
    assert {unet} in together  # it comes again in each step
    assert {vae} in together  # the finished image's
    guided = {vae, "CLIP"} if jacobian == "stop" else {unet, vae, "CLIP"}
    assert guided in together
    assert max(map(len, together)) == len(guided)


def test_auto_lowers_what_makes_and_not_what_compares(models: dict[str, Any]) -> None:
    with accelerator():
        images = drawn(models, "cuda")
        assert np.isfinite(images).all()
        assert not (images == drawn(models, "cuda", dtype="fp32")).all()


def test_an_autoencoder_that_overflows_in_fp16_is_kept_in_fp32() -> None:
    device = devices.Device("meta", "fp16")
    vae = small_models.vae()
    assert part_dtype(vae, device) == torch.float32
    vae.register_to_config(force_upcast=False)
    assert part_dtype(vae, device) == torch.float16
    assert part_dtype(small_models.vae(), devices.Device("meta", "bf16")) == torch.bfloat16


def test_an_image_that_overflowed_is_refused(models: dict[str, Any]) -> None:
    model = load_diffusion(models["denoiser"].removeprefix("local-dir:"))
    model.pipe.vae.decoder.conv_out.bias.fill_(torch.inf)
    with pytest.raises(CannotDo, match="Image 1 of 2 is not finite"):
        model.decode(torch.zeros(2, *model.pipe.latent_shape((16, 16))))


def test_a_run_keeps_its_dtype_for_rerun(models: dict[str, Any], tmp_path: Path) -> None:
    first = run(Recipe.of({**models, "device": "cpu", "dtype": "bf16", "out": str(tmp_path)}))
    folder = first.result().folder
    assert folder is not None
    record = json.loads((folder / "run.json").read_text())
    assert record["setting"]["dtype"] == "bf16"
    assert "peak_memory_bytes" not in record
    again = load_run(folder)
    assert again.recipe.dtype == "bf16"
    auto = Recipe.of({**models, "device": "cpu"})
    assert _with_dtype_of(auto, {"dtype": "bf16"}).dtype == "bf16"
    assert _with_dtype_of(auto, {}) is auto
    with accelerator():
        assert _with_dtype_of(auto.with_(device="cuda"), {}).dtype == "fp32"
