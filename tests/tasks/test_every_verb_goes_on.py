"""Every verb that makes images goes on after an interruption, with the shipped kit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guided.recipe import Recipe
from guided.studio import run
from guided.worlds.portraits import draw, sample

DRAWN = {"count": 2, "batch": 1, "steps": 2, "prompts": ["a bald man"]}
#: name -> keys of a recipe that makes two images, one at a time; IMAGES stands for two files.
RECIPES: dict[str, dict[str, Any]] = {
    "diffusion": {"task": "generate", **DRAWN},
    "guided diffusion": {"task": "generate", "guide": ["prompt"], **DRAWN},
    "unclip": {"task": "generate", "method": "unclip", "prior_steps": 2, **DRAWN},
    "delta": {"task": "edit", "images": "IMAGES", "prompt": ["a red hat"], "method": "delta",
              "batch": 1, "strip": True},
    "turn": {"task": "edit", "images": "IMAGES", "prompt": ["a red hat"], "method": "turn",
             "batch": 1, "denoise_steps": 2},
    "vary": {"task": "vary", "images": "IMAGES", "count": 1, "steps": 2},
    "portraits": {"task": "portraits", "count": 2, "size": 64},
}  # fmt: skip


def start(keys: dict[str, Any], images: list[str], out: Path) -> Any:
    """The started run of a recipe into a folder."""
    own = {key: images if value == "IMAGES" else value for key, value in keys.items()}
    return run(Recipe.of({**own, "device": "cpu", "seed": 3, "out": str(out)}, "test"), threads=1)


def made(folder: Path) -> dict[str, bytes]:
    """The images of a run's folder and what stands beside them, by name."""
    kinds = (".png", ".safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in kinds}


#: Those that share a loop with another are run by the soak.
ALIKE = ("guided diffusion", "unclip", "delta")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.soak) if n in ALIKE else n for n in RECIPES],
)
def test_a_verb_goes_on_where_it_was_stopped(name: str, tmp_path: Path) -> None:
    images = [str(tmp_path / f"{seed}.png") for seed in range(2)]
    for seed, file in enumerate(images):
        draw(sample(seed, "test"), 128).save(file)
    whole = start(RECIPES[name], images, tmp_path / "whole").result()
    begun = start(RECIPES[name], images, tmp_path / "parts")
    for _ in begun:
        if list((tmp_path / "parts").glob("*.png")):
            begun.stop()
    first = made(tmp_path / "parts")
    assert 0 < len(first) < len(made(tmp_path / "whole"))
    assert not (tmp_path / "parts" / "run.json").exists()
    rest = start(RECIPES[name], images, tmp_path / "parts").result()
    assert made(tmp_path / "parts") == made(tmp_path / "whole")
    assert {n: data for n, data in made(tmp_path / "parts").items() if n in first} == first
    answers = [
        json.dumps(result.answer).replace(str(result.folder), "FOLDER") for result in (rest, whole)
    ]
    assert answers[0] == answers[1]
