"""Masks, several texts, negative and automatic strength, and the self-check, for every method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import guided as g
from guided.editing.latent import LatentEditor
from guided.editing.regions import Region, elsewhere, feathered
from guided.errors import UsageError
from guided.generators.latents import read_delta
from guided.recipe import Recipe
from guided.studio import run
from guided.tasks._edit_inputs import read_mask
from guided.tasks.base import TaskContext
from tests.helpers import tiny_edit, tiny_faces

SIZE = 32
METHODS = ("direction", "mapper", "delta", "refine")
Editing = Callable[..., dict[str, Any]]
#: The options here that not every method has, and those that each has.
SPECIAL = ("steps", "beta", "delta", "statistics", "mapper")
OWN = {
    "optimise": ("steps",), "direction": ("statistics", "beta"), "mapper": ("mapper",),
    "delta": ("delta",), "refine": ("delta",),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    stylegan = tiny_faces.tiny_stylegan2()
    channels = sum(len(layer.conv.modulation.bias) for layer in [stylegan.conv1, *stylegan.convs])
    relevance = torch.randn(channels, 24, generator=torch.Generator().manual_seed(0))
    relevance = torch.nn.functional.normalize(relevance, dim=1)
    save_file({"relevance": relevance}, folder / "directions.safetensors")
    return {
        **tiny_edit.write_models(folder),
        "inverter": str(tiny_edit.write_inverter(folder / "inverter.safetensors")),
        "delta": str(tiny_edit.write_delta(folder / "delta.safetensors")),
        "statistics": str(folder / "directions.safetensors"),
        "mapper": str(tiny_faces.write_mapper(folder / "purple.pt")),
    }


@pytest.fixture
def edit(files: dict[str, str], tmp_path: Path) -> Editing:
    def call(**options: Any) -> dict[str, Any]:
        own = OWN.get(options.get("method", ""), ())
        shared = {key: file for key, file in files.items() if key not in SPECIAL or key in own}
        usual = {"faces": "aligned", "prompt": ["a red hat"], **shared}
        usual |= {key: value for key, value in {"steps": 2, "beta": 0.01}.items() if key in own}
        data = {"task": "edit", "out": str(tmp_path / "out"), **usual, **options}
        answer: dict[str, Any] = run(Recipe.of(data, "test")).result().answer
        return answer

    return call


@pytest.fixture
def face(tmp_path: Path) -> Path:
    colours = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    file = tmp_path / "face.png"
    Image.fromarray(colours).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file)
    return file


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    drawn = Image.new("L", (SIZE, SIZE), 0)
    drawn.paste(255, (0, 0, SIZE, SIZE // 2))
    drawn.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def pixels(file: str | Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(int)


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize("method", METHODS)
def test_outside_a_mask_the_picture_is_the_sources(
    edit: Editing, face: Path, mask: Path, tmp_path: Path, method: str
) -> None:
    options = {"images": [str(face)], "method": method, "mask": str(mask)}
    (row,) = edit(**options, sweep=[2.0], strip=True)["results"]
    source, after = pixels(face), pixels(row["image"])
    half = SIZE // 2
    assert (after[half:] == source[half:]).all()
    assert (after[: half - 2] != source[: half - 2]).mean() > 0.9
    assert row["metrics"]["change_outside"] == pytest.approx(0, abs=1e-6)
    assert row["metrics"]["change"] > 0
    for sheet in (row["sweep"], row["strip"]):
        assert (pixels(sheet)[4 + half : 4 + SIZE, 4 : 4 + SIZE] == source[half:]).all()


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_what_is_transparent_in_a_mask_stays(
    edit: Editing, face: Path, mask: Path, tmp_path: Path, kind: str
) -> None:
    white = Image.new("LA", (SIZE, SIZE), (255, 0))
    white.putalpha(Image.open(mask).convert("L"))
    file = tmp_path / "clear.png"
    if kind == "P":
        drawn = Image.new("P", (SIZE, SIZE), 1)
        drawn.putpalette([255] * 6)
        drawn.paste(0, (0, 0, SIZE, SIZE // 2))
        drawn.save(file, transparency=1)
    else:
        white.convert(kind).save(file)
    assert np.array_equal(read_mask(TaskContext(), file).convert("L"), Image.open(mask))
    if kind == "RGBA":
        options = {"images": [str(face)], "method": "delta"}
        (row,), (plain,) = (
            edit(**options, mask=str(each), out=str(tmp_path / each.stem))["results"]
            for each in (file, mask)
        )
        assert np.array_equal(pixels(row["image"]), pixels(plain["image"]))


def test_a_mask_in_memory_is_that_of_its_file(
    edit: Editing, files: dict[str, str], face: Path, mask: Path, tmp_path: Path
) -> None:
    (row,) = edit(images=[str(face)], method="delta", mask=str(mask))["results"]
    clear = Image.new("LA", (SIZE, SIZE), (255, 0))
    clear.putalpha(Image.open(mask).convert("L"))
    own = {key: file for key, file in files.items() if key not in SPECIAL or key == "delta"}
    own |= {"faces": "aligned", "method": "delta", "prompt": "a red hat"}
    for out in (None, tmp_path / "saved"):
        for held in (clear, np.asarray(Image.open(mask)) > 127):
            result = g.edit(Image.open(face), mask=held, out=out, **own).result()
            assert np.array_equal(np.asarray(result.images[0]), pixels(row["image"]))


def test_a_mask_that_lets_nothing_change_is_refused(tmp_path: Path) -> None:
    painted = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
    painted.paste((0, 0, 0, 255), (0, 0, SIZE, SIZE // 2))
    painted.save(tmp_path / "black.png")
    with pytest.raises(UsageError, match=r"black\.png is black everywhere, or transparent"):
        read_mask(TaskContext(), tmp_path / "black.png")


def test_going_on_without_the_mask_is_said(
    edit: Editing, face: Path, mask: Path, tmp_path: Path
) -> None:
    options = {"images": [str(face)], "method": "delta", "mask": str(mask)}
    (row,) = edit(**options)["results"]
    again = {"images": [row["image"]], "prompt": [], "strength": 0.5}
    held = edit(**again, mask=str(mask), out=str(tmp_path / "held"))
    assert "warnings" not in held
    half = SIZE // 2
    assert (pixels(held["results"][0]["image"])[half:] == pixels(face)[half:]).all()
    loose = edit(**again, out=str(tmp_path / "loose"))
    assert "was edited within a mask; without --mask" in loose["warnings"][0]


def test_a_feathered_mask_stays_inside_itself() -> None:
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 40:80, 40:80] = 1
    mask[..., 0:10, :] = 1
    faded = feathered(mask)
    assert not faded[mask == 0].any()
    ramp = faded[0, 0, 60, 38:46]
    assert torch.allclose(ramp, torch.tensor([0, 0, 1, 2, 3, 3, 3, 3]) / 3)
    assert bool((faded[..., 0, :] == 1).all())  # the picture's border is no edge
    grey = feathered(torch.full((1, 1, 64, 64), 0.5))
    assert bool((grey == 0.5).all())
    new, old = torch.ones(1, 3, 128, 128), torch.zeros(1, 3, 128, 128)
    joined = Region.of(mask, old).keep(new)
    assert torch.equal(joined, faded.expand_as(joined))


def test_elsewhere_is_the_half_that_changes_least() -> None:
    before, after = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    after[0, :, :2] = 0.9
    after[1] = 0.25
    assert elsewhere(before, after).tolist() == [0.0, 0.25]


# ------------------------------------------------------------------ texts and strengths


def test_several_texts_add_their_changes(edit: Editing, tmp_path: Path) -> None:
    prompts = ["a red hat", "green grass", "a red hat | green grass::-0.5"]
    for method in ("direction", "delta"):
        out = str(tmp_path / method)
        rows = edit(prompt=prompts, method=method, out=out)["results"]
        first, second, both = (read_delta(row["latent"]).change for row in rows)
        for name, change in both.items():
            wanted = first[name] - 0.5 * second[name]
            assert torch.allclose(change, wanted, atol=1e-4 * max(1.0, float(wanted.abs().max())))
        assert rows[2]["metrics"]["clip_gain"] != 0


@pytest.mark.parametrize("method", ["optimise", *METHODS])
def test_every_method_reports_and_takes_any_strength(
    edit: Editing, tmp_path: Path, method: str
) -> None:
    shown = {}
    for strength in (-1.0, 1.0, "auto"):
        out = str(tmp_path / str(strength))
        (row,) = edit(method=method, strength=strength, out=out)["results"]
        told = row["metrics"]
        assert set(told) == {"clip_before", "clip_after", "clip_gain", "agrees", "identity",
                             "change", "change_outside"}  # fmt: skip
        assert isinstance(told["agrees"], bool)
        assert 0 <= told["change_outside"] <= told["change"]
        shown[strength] = row
    assert shown[-1.0]["strength"] == -1
    assert (pixels(shown[-1.0]["image"]) != pixels(shown[1.0]["image"])).any()
    assert shown["auto"]["strength"] in LatentEditor.tried


def test_auto_needs_words(edit: Editing) -> None:
    with pytest.raises(UsageError, match=r"auto is the least .* there is none") as caught:
        edit(method="mapper", prompt=[], strength="auto")
    assert "--prompt" in str(caught.value)


def test_a_saved_edit_is_checked_again(edit: Editing, tmp_path: Path) -> None:
    (first,) = edit(method="delta")["results"]
    (again,) = edit(images=[first["image"]], prompt=[], out=str(tmp_path / "b"))["results"]
    assert again["prompt"] == "a red hat"
    for name in ("clip_gain", "identity", "change"):
        assert again["metrics"][name] == pytest.approx(first["metrics"][name], abs=1e-5)


# ------------------------------------------------------------------ folders and words


def test_a_folder_stands_for_its_pictures(edit: Editing, face: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    (folder / "more").mkdir(parents=True)
    for name in ("b.png", "more/a.jpg"):
        Image.open(face).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    rows = edit(method="delta", images=[str(folder), str(face)])["results"]
    assert [Path(row["file"]).name for row in rows] == ["b.png", "a.jpg", "face.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty has no pictures.*\.png"):
        edit(method="delta", images=[str(tmp_path / "empty")])


def test_words_in_the_place_of_a_picture_are_offered_as_the_prompt(edit: Editing) -> None:
    with pytest.raises(UsageError, match=r"Give --prompt 'pink hair'"):
        edit(method="delta", images=["pink hair"], prompt=[])
