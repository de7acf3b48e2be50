from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guided.core import lineage
from guided.editing.latent import LatentEditor
from guided.errors import (
    CannotDo,
    CorruptWeights,
    MissingWeights,
    RecipeError,
    ShapeError,
    UsageError,
)
from guided.generators.latents import read_delta
from guided.recipe import Recipe
from guided.studio import run
from guided.tasks import edit as verb
from tests.helpers import tiny_faces
from tests.helpers.tiny_clip import write_clip

pytestmark = pytest.mark.usefixtures("shared_models")

SIZE = 32


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "generator": str(tiny_faces.write_generator(folder / "stylegan2.pt")),
        "inverter": str(tiny_faces.write_encoder(folder / "e4e.pt")),
        "identity": str(tiny_faces.write_face_network(folder / "model_ir_se50.pth")),
        "scorer": f"local-dir:{write_clip(folder / 'clip')}",
    }


@pytest.fixture
def edit(files: dict[str, str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the verb with the tiny models and give its answer; files land in ``tmp_path/out``."""

    def call(**options: Any) -> dict[str, Any]:
        steps = {"steps": 4} if options.get("method", "optimise") == "optimise" else {}
        data: dict[str, Any] = {"task": "edit", **steps, "out": str(tmp_path / "out"), **files}
        data |= {key: value for key, value in options.items() if value is not None}
        return run(Recipe.of(data, "test")).result().answer

    return call


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def picture(path: Path, size: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


FACE = "100,110,140,112,106,152,134,153"


# ------------------------------------------------------------------ what comes out


def test_random_portraits_by_prompts(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    answer = edit(prompt=["red hat", "green grass"], count=2, strip=True, sweep=[-1.0, 0.0, 1.0],
                  gif=3, keep_identity=0.1)  # fmt: skip
    results = answer["results"]
    assert [row["prompt"] for row in results] == ["red hat", "green grass"] * 2
    assert len({row["image"] for row in results}) == 4
    for row in results:
        assert set(row) >= {"file", "prompt", "method", "image", "strength", "metrics", "latent"}
        assert row["method"] == "optimise"
        assert row["metrics"]["clip_gain"] == pytest.approx(
            row["metrics"]["clip_after"] - row["metrics"]["clip_before"]
        )
        assert set(row["metrics"]) >= {"identity", "change", "agrees"}
        assert pixels(row["image"]).shape == (SIZE, SIZE, 3)
        assert pixels(row["strip"]).shape[1] > 2 * SIZE
        assert pixels(row["sweep"]).shape[1] > 3 * SIZE
        with Image.open(row["animation"]) as moving:
            assert moving.n_frames == 4
        assert Path(row["latent"]).is_file()


def test_the_search_raises_the_cosine(edit: Callable[..., dict[str, Any]]) -> None:
    (row,) = edit(prompt=["red hat"], steps=25, near=0.0)["results"]
    assert row["metrics"]["clip_gain"] > 0.02


def test_batches_equal_singles(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    prompts = ["red hat", "a green dog", "blue sky"]
    together = edit(prompt=prompts, batch=8, out=str(tmp_path / "a"))["results"]
    for prompt, row in zip(prompts, together, strict=True):
        alone = edit(prompt=[prompt], out=str(tmp_path / prompt))["results"][0]
        one, many = read_delta(alone["latent"]), read_delta(row["latent"])
        assert torch.allclose(one.change["w"], many.change["w"], atol=1e-4)
        assert np.abs(pixels(alone["image"]) - pixels(row["image"])).max() <= 1


def test_several_weighted_texts_in_a_prompt(edit: Callable[..., dict[str, Any]]) -> None:
    (row,) = edit(prompt=["red hat | a dog::-0.5"])["results"]
    (other,) = edit(prompt=["red hat"])["results"]
    assert (pixels(row["image"]) != pixels(other["image"])).any()


def test_pictures_are_inverted(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = picture(tmp_path / "face.png", (48, 40))
    (row,) = edit(images=[str(file)], prompt=["red hat"], faces="aligned", strength=0)["results"]
    assert row["file"] == str(file)
    both = {"invert": "both", "invert_steps": 30, "out": str(tmp_path / "both"), "strength": 0}
    (searched,) = edit(images=[str(file)], prompt=["red hat"], faces="aligned", **both)["results"]
    from guided.core.images import center_square, open_image

    target = np.asarray(center_square(open_image(file), SIZE)).astype(int)
    by_encoder, by_both = (
        np.abs(pixels(each["image"]) - target).mean() for each in (row, searched)
    )
    assert by_both < by_encoder


def test_style_space_and_the_styleclip_view(edit: Callable[..., dict[str, Any]]) -> None:
    (row,) = edit(prompt=["red hat"], space="s", preprocess="styleclip")["results"]
    delta = read_delta(row["latent"])
    assert "s_00" in delta.start
    assert "s_01" not in delta.change or not delta.change["s_01"].any()


def test_loss_tables_replace_the_usual_losses(edit: Callable[..., dict[str, Any]]) -> None:
    tables = [
        {"kind": "directional", "source": "a photo", "weight": 1.0},
        {"kind": "latent_l2", "form": "mean", "weight": 0.1},
        {"kind": "perceptual", "weight": 0.5},
    ]
    (row,) = edit(prompt=["red hat"], loss=tables)["results"]
    assert row["metrics"]["change"] > 0
    with pytest.raises(RecipeError, match=r"latent_l2.*no key 'fom'.*Did you mean 'form'"):
        edit(prompt=["red hat"], loss=[{"kind": "latent_l2", "fom": "mean"}])
    with pytest.raises(RecipeError, match="latent_l2"):
        edit(prompt=["red hat"], loss=[{"kind": "latent_l2", "form": "median"}])
    with pytest.raises(RecipeError, match="identity"):
        edit(prompt=["red hat"], loss=[{"kind": "identify"}])


# ------------------------------------------------------------------ one-pass methods


def test_public_mapper_files(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for space in ("w", "s"):
        file = tiny_faces.write_mapper(tmp_path / f"purple_{space}.pt", space=space)
        (row,) = edit(method="mapper", mapper=str(file))["results"]
        assert row["prompt"] == f"purple {space}"
        change = read_delta(row["latent"]).change
        assert ("w" in change) == (space == "w")
        assert any(leaf.abs().max() > 0 for leaf in change.values())


def test_global_directions(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    net = tiny_faces.tiny_stylegan2()
    channels = sum(len(layer.conv.modulation.bias) for layer in [net.conv1, *net.convs])
    rng = np.random.default_rng(0)
    fs3 = rng.standard_normal((channels, 24)).astype(np.float32)
    np.save(tmp_path / "fs3.npy", fs3 / np.linalg.norm(fs3, axis=1, keepdims=True))
    options = {"method": "direction", "statistics": str(tmp_path / "fs3.npy"), "prompt": ["a dog"]}
    (row,) = edit(**options, neutral="a photo")["results"]
    assert row["method"] == "direction"
    with pytest.raises(CannotDo, match=r"beta = 0\.99 leaves no channel"):
        edit(**options, neutral="a photo", beta=0.99)
    with pytest.raises(UsageError, match="--statistics"):
        edit(method="direction", prompt=["a dog"])


# ------------------------------------------------------------------ strength, lineage, going on


def test_another_strength_needs_no_search(
    edit: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = edit(prompt=["red hat"], out=str(tmp_path / "first"))["results"]
    monkeypatch.setattr("guided.guidance.edit.optimise", None)  # any search would fail
    shown = {}
    for strength in (0.0, 0.5, 1.0):
        (row,) = edit(images=[first["image"]], strength=strength, scorer="local-dir:/nowhere",
                      out=str(tmp_path / str(strength)))["results"]  # fmt: skip
        shown[strength] = pixels(row["image"])
        assert row["strength"] == strength
        assert row["prompt"] == "red hat"
    assert (shown[1.0] == pixels(first["image"])).all()
    assert (shown[0.0] != shown[1.0]).any()
    assert (shown[0.5] != shown[1.0]).any()


def test_an_edit_goes_on_from_the_saved_latent(
    edit: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (first,) = edit(prompt=["red hat"], strength=0.5, out=str(tmp_path / "one"))["results"]
    (second,) = edit(images=[first["image"]], prompt=["a dog"], inverter="/nowhere.pt",
                     out=str(tmp_path / "two"))["results"]  # fmt: skip
    before, after = read_delta(first["latent"]), read_delta(second["latent"])
    assert torch.allclose(after.start["w"], before.at(0.5)["w"])
    line = lineage.read(Path(second["image"]))
    assert line is not None
    assert [entry.note.get("prompt") for entry in line.chain] == ["red hat", "a dog"]
    (by_file,) = edit(images=[first["latent"]], prompt=["a dog"], out=str(tmp_path / "three"))[
        "results"
    ]
    assert torch.allclose(read_delta(by_file["latent"]).start["w"], before.at(1.0)["w"])


def test_shared_latent_files(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    latents = torch.randn(2, 8, tiny_faces.STYLE, generator=torch.Generator().manual_seed(0))
    torch.save(latents, tmp_path / "train_faces.pt")
    rows = edit(images=[str(tmp_path / "train_faces.pt")], prompt=["red hat"])["results"]
    assert len(rows) == 2
    assert torch.allclose(read_delta(rows[1]["latent"]).start["w"], latents[1:])


def test_auto_strength_is_on_the_grid(edit: Callable[..., dict[str, Any]]) -> None:
    (row,) = edit(prompt=["red hat"], strength="auto", steps=10)["results"]
    assert row["strength"] in LatentEditor.tried


# ------------------------------------------------------------------ photographs


def photo(path: Path) -> Path:
    return picture(path, (240, 260), seed=3)


def test_a_face_is_cut_edited_and_put_back(
    edit: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    file = photo(tmp_path / "me.png")
    (row,) = edit(images=[str(file)], prompt=["red hat"], landmarks=[FACE])["results"]
    before, after = pixels(str(file)), pixels(row["image"])
    assert after.shape == before.shape
    assert (after[:30] == before[:30]).all()
    assert (after[:, 210:] == before[:, 210:]).all()
    assert (after[100:140, 100:140] != before[100:140, 100:140]).mean() > 0.5
    (again,) = edit(images=[row["image"]], prompt=["a dog"], out=str(tmp_path / "on"))["results"]
    assert pixels(again["image"]).shape == before.shape


def test_pasting_the_difference_of_no_edit_changes_nothing(
    edit: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    file = photo(tmp_path / "me.png")
    (row,) = edit(images=[str(file)], prompt=["red hat"], landmarks=[FACE], strength=0,
                  paste="difference")["results"]  # fmt: skip
    assert (pixels(row["image"]) == pixels(str(file))).all()


def test_a_mask_limits_the_change(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (0, 0, SIZE, SIZE // 2))
    mask.save(tmp_path / "mask.png")
    options = {"prompt": ["red hat"], "steps": 15, "mask": str(tmp_path / "mask.png")}
    (held,) = edit(**options, keep_outside=300.0)["results"]
    (loose,) = edit(**options, keep_outside=0.0)["results"]
    assert held["metrics"]["change_outside"] < loose["metrics"]["change_outside"]


# ------------------------------------------------------------------ what is refused


def test_missing_weights_of_the_kit_are_named(tmp_path: Path) -> None:
    recipe = Recipe.of({"task": "edit", "prompt": ["red hat"], "kit": "photo"}, "test")
    with pytest.raises(MissingWeights, match="stylegan2-ffhq"):
        run(recipe, save=False).result()


def test_a_photo_needs_landmarks(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = photo(tmp_path / "me.png")
    with pytest.raises(UsageError, match="Where is the face in me") as caught:
        edit(images=[str(file)], prompt=["red hat"])
    assert "--landmarks" in str(caught.value)
    none = tmp_path / "none.json"
    none.write_text('{"faces": []}')
    with pytest.raises(UsageError, match="holds no face"):
        edit(images=[str(file)], prompt=["red hat"], landmarks=[str(none)])
    two = tmp_path / "two.json"
    face = [[100, 110], [140, 112], [106, 152], [134, 153]]
    two.write_text(json.dumps({"faces": [face, face]}))
    with pytest.raises(UsageError, match="There are 2 faces") as caught:
        edit(images=[str(file)], prompt=["red hat"], landmarks=[str(two)])
    assert "--face 1" in str(caught.value)
    assert edit(images=[str(file)], prompt=["red hat"], landmarks=[str(two)], face=2)["results"]


def test_a_mask_of_another_size(edit: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    Image.new("L", (20, 20), 255).save(tmp_path / "mask.png")
    file = photo(tmp_path / "me.png")
    with pytest.raises(ShapeError, match=r"20 x 20 pixels, the picture me\.png 240 x 260"):
        edit(images=[str(file)], prompt=["red hat"], landmarks=[FACE],
             mask=str(tmp_path / "mask.png"))  # fmt: skip


def test_a_wrong_checkpoint_says_which_keys_miss(
    edit: Callable[..., dict[str, Any]], files: dict[str, str]
) -> None:
    with pytest.raises(CorruptWeights, match=r"input\.input"):
        edit(prompt=["red hat"], generator=files["identity"])
    with pytest.raises(CorruptWeights, match="no StyleCLIP mapper"):
        edit(method="mapper", mapper=files["identity"])


def test_a_prompt_longer_than_the_context_is_said(edit: Callable[..., dict[str, Any]]) -> None:
    answer = edit(prompt=["red hat " * 40])
    assert "tokens" in answer["warnings"][0]


def test_one_broken_picture_spoils_no_other(
    edit: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    good, bad = picture(tmp_path / "good.png"), tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    answer = edit(images=[str(bad), str(good)], prompt=["red hat"], faces="aligned")
    assert [row["file"] for row in answer["results"]] == [str(good)]
    assert answer["errors"][0]["file"] == str(bad)


def test_nothing_to_do_is_a_usage_error(edit: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="What should change"):
        edit()


def test_the_portraits_kit_warns_of_a_photo(
    files: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "me.jpg")
    data = {"task": "edit", "images": [str(tmp_path / "me.jpg")], "prompt": ["red hat"]}
    own = {key: files[key] for key in ("scorer", "inverter")}
    steps = run(Recipe.of({**data, **own}, "test"), save=False)
    with contextlib.suppress(MissingWeights, ShapeError, CorruptWeights):  # tiny models beside it
        steps.result()
    assert "does not look like a drawn portrait" in caplog.text
    assert f"guided edit {tmp_path / 'me.jpg'}" in caplog.text
    assert "--kit photo --method ddpm" in caplog.text


def test_needs_follow_the_options() -> None:
    kit = {"generator": "g", "delta": "d"}
    assert verb.needs(verb.settle(verb.Options(prompt=["x"]), kit)) == (
        "generator", "scorer", "delta",
    )  # fmt: skip
    kit |= {"denoiser": "n", "prior": "p"}
    picture = verb.Options(prompt=["x"], images=[Path("a.jpg")])
    assert verb.needs(verb.settle(picture, kit)) == ("denoiser", "scorer")
    assert verb.needs(verb.settle(picture.model_copy(update={"fast": True}), kit))[-1] == "delta"
    assert verb.needs(verb.Options(prompt=["x"], scorer="own.pt")) == ("generator", "scorer")
    search = {"method": "optimise", "keep_identity": 0.1}
    options = verb.Options(prompt=["x"], images=[Path("a.jpg")], **search)
    assert verb.needs(options) == ("generator", "scorer", "inverter", "identity")
    assert verb.needs(verb.Options(images=[Path("a.safetensors")])) == ("generator",)


def test_command_line(
    guided_cli: Callable[..., Any], files: dict[str, str], tmp_path: Path
) -> None:
    models = [word for role, file in files.items() for word in (f"--{role}", file)]
    said = guided_cli("edit", "--prompt", "red hat", "--steps", 2, *models, "--json", "--seed", 5,
                      "--out", tmp_path / "o")  # fmt: skip
    assert said.status == 0, said.err
    (row,) = said.answer["results"]
    assert Path(row["image"]).is_file()
    again = guided_cli("rerun", row["image"], "--json", "--out", tmp_path / "again")
    assert again.status == 0, again.err
    assert (pixels(again.answer["results"][0]["image"]) == pixels(row["image"])).all()


def test_the_verb_is_known_without_torch() -> None:
    code = "import sys, guided.tasks.edit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
