"""``guided generate --method diffusion``, from the command line on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from guided.recipe import Recipe
from guided.tasks import generate
from guided.tasks.base import TaskContext
from tests.helpers.small_models import write_folder
from tests.helpers.tiny_clip import write_clip

pytestmark = pytest.mark.usefixtures("shared_models")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("generate")
    folder, clip = write_folder("sd", root / "sd"), write_clip(root / "clip")
    return f"local-dir:{folder}", f"local-dir:{clip}"


def pixels(file: str) -> bytes:
    with Image.open(file) as image:
        assert image.size == (16, 16)
        return image.tobytes()


def test_pictures_of_words(guided_cli: Callable, places: tuple[str, str], tmp_path: Path) -> None:
    guide = tmp_path / "guide.png"
    Image.new("RGB", (24, 20), (200, 30, 30)).save(guide)
    words = ["generate", "red", "a dog", "--denoiser", places[0], "--scorer", places[1],
             "--steps", 2, "--count", 2, "--seed", 5, "--json"]  # fmt: skip
    steered = ["--guide", "prompt", "--guide", "a cat | grass::-0.5", "--guide-image", guide]
    plain = guided_cli(*words, "--out", tmp_path / "plain")
    assert plain.status == 0, plain.err
    rows = plain.answer["results"]
    assert [(row["prompt"], row["seed"]) for row in rows] == [
        ("red", 5), ("red", 6), ("a dog", 5), ("a dog", 6),
    ]  # fmt: skip
    assert set(rows[0]) == {"prompt", "image", "seed"}
    again = guided_cli(*words, "--out", tmp_path / "again", "--batch", 1)
    for one, other in zip(rows, again.answer["results"], strict=True):
        near = zip(pixels(one["image"]), pixels(other["image"]), strict=True)
        assert max(abs(a - b) for a, b in near) <= 1
    guided = guided_cli(*words, *steered, "--out", tmp_path / "guided", "--guide-scale", 0.5)
    assert guided.status == 0, guided.err
    changed = [
        pixels(a["image"]) != pixels(b["image"])
        for a, b in zip(rows, guided.answer["results"], strict=True)
    ]
    assert all(changed)


def test_steps_carry_previews(places: tuple[str, str]) -> None:
    options = generate.Options(
        prompts=["red", "a dog"], denoiser=places[0], scorer=places[1], steps=3, guide=["prompt"],
        batch=1, cfg=1.0, every=2,
    )  # fmt: skip
    steps = list(generate.run(options, TaskContext(device_name="cpu")))
    assert [(step.index, step.total) for step in steps] == [(i, 6) for i in range(1, 7)]
    assert [sorted(step.losses) for step in steps[:2]] == [["clip", "skipped", "total"], []]
    assert all(step.draft.image.shape == (1, 3, 16, 16) for step in steps)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--steps", 0], "steps = 0"),
        (["--size", 19], "not a multiple of 2"),
        (["--size", -8], "not a multiple of 2 from 2 up"),
        (["--scheduler", "ddmi"], "there are: ddim"),
        (
            ["--guide", "prompt", "--guide-scale", "inf"],
            "guide_scale = inf: must be a finite number",
        ),
        (["--cfg", "nan"], "cfg = nan: must be a finite number"),
        (["--guide", "prompt", "--guide-scale", "1e30"], "Lower --cfg and --guide-scale"),
        (["--guide", "a/cat.png"], "--guide-image a/cat.png"),
        (["--method", "difusion"], "Did you mean 'diffusion'?"),
        (["--decode", "latent", "--guide", "prompt"], "scorer of latents"),
        (["--decode", "tiny", "--guide", "prompt"], "no tiny decoder"),
        (["--scheduler", "heun", "--recurrence", 2, "--guide", "prompt"], "remembers earlier"),
    ],
)
def test_what_does_not_fit_is_told(
    words: list[object], told: str, guided_cli: Callable, places: tuple[str, str], tmp_path: Path
) -> None:
    said = guided_cli("generate", "red", "--denoiser", places[0], "--scorer", places[1],
                      "--out", tmp_path / "out", "--json", *words)  # fmt: skip
    assert said.status in (1, 2)
    assert told in said.err
    assert not said.out


def test_a_prompt_that_is_too_long_is_told_once_and_short(
    guided_cli: Callable, places: tuple[str, str], tmp_path: Path
) -> None:
    said = guided_cli("generate", "red dog " * 250, "--denoiser", places[0], "--steps", 1,
                      "--out", tmp_path / "out", "--json")  # fmt: skip
    assert said.status == 0, said.err
    assert said.err.count("has 1002 tokens; this model reads 8: the rest was left out") == 1
    assert len(said.err) < 500


def test_a_guide_of_one_pixel_and_one_that_is_not_finite(
    guided_cli: Callable, places: tuple[str, str], tmp_path: Path
) -> None:
    guide = tmp_path / "guide.png"
    Image.new("RGB", (1, 1), (200, 30, 30)).save(guide)
    words = ["generate", "red", "--denoiser", places[0], "--steps", 1, "--json"]
    said = guided_cli(
        *words, "--scorer", places[1], "--guide-image", guide, "--out", tmp_path / "a"
    )
    assert said.status == 0, said.err
    clip = Path(shutil.copytree(places[1].removeprefix("local-dir:"), tmp_path / "clip"))
    (file,) = clip.glob("*.safetensors")
    tensors = load_file(file)
    name = next(key for key in tensors if key.startswith("visual.") and key.endswith("weight"))
    words += ["--scorer", f"local-dir:{clip}", "--guide", "prompt", "--out", tmp_path / "b"]
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, file)
    said = guided_cli(*words)
    assert (said.status, f"are not finite: {name!r} holds NaN" in said.err) == (1, True)
    save_file({**tensors, name: torch.full_like(tensors[name], 3e38)}, file)  # overflows in use
    said = guided_cli(*words)
    assert said.status == 0, said.err
    assert said.answer["warnings"] == [
        "Guidance was not finite and skipped for 1 of 1 guided steps."
    ]


def test_an_empty_prompt_and_a_missing_folder(guided_cli: Callable, tmp_path: Path) -> None:
    said = guided_cli("generate", " ", "--json", "--denoiser", f"local-dir:{tmp_path}")
    assert (said.status, "A prompt is empty" in said.err) == (2, True)
    said = guided_cli("generate", "red", "--json", "--denoiser", f"local-dir:{tmp_path}")
    assert (said.status, "model_index.json" in said.err) == (1, True)


def test_what_it_needs_depends_on_what_steers() -> None:
    recipe = Recipe.of({"task": "generate", "prompts": ["red"]})
    assert generate.needs(recipe.options) == ("denoiser",)
    guided = Recipe.of({"task": "generate", "prompts": ["red"], "guide": ["prompt"]})
    assert generate.needs(guided.options) == ("denoiser", "scorer")
    assert "diffusion" in generate.methods()
