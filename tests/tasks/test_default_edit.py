"""``guided edit PICTURE --prompt TEXT`` and nothing else: the method, the strength, the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import guided as g
from guided.tasks._edit_options import Options, resolve_method, second_methods
from guided.tasks._edit_outputs import verdict
from guided.worlds.portraits import draw, sample

KIT = {"generator": "g", "delta": "d", "denoiser": "n", "prior": "p", "latent_scorer": "l"}
PLAIN = {"images": ["a.png"], "prompt": ["a hat"]}


@pytest.mark.parametrize(
    ("more", "method", "strength"),
    [
        ({}, "text-diff", "auto"),
        ({"strength": 0.7}, "text-diff", 0.7),
        ({"max_angle": 0.2}, "text-diff", "auto"),
        ({"mask": "m.png"}, "text-diff", "auto"),
        ({"fast": True}, "delta", 1.0),
        ({"gif": 5}, "delta", 1.0),
        ({"images": []}, "delta", 1.0),
        ({"images": ["a.safetensors"]}, "delta", 1.0),
        ({"landmarks": ["1,2,3,4,5,6,7,8"]}, "delta", 1.0),
        ({"rate": 0.2}, "optimise", 1.0),
        ({"loss": [{"kind": "clip"}]}, "optimise", 1.0),
        ({"generator": "own.pt"}, "optimise", 1.0),
        ({"method": "sdedit"}, "sdedit", 1.0),
    ],
)
def test_the_method_follows_what_is_given(more: dict[str, Any], method: str, strength: Any) -> None:
    settled = resolve_method(Options.model_validate(PLAIN | more), KIT)
    assert (settled.method, settled.strength) == (method, strength)


def test_kits_without_a_prior_move_latents() -> None:
    options = Options.model_validate(PLAIN)
    assert resolve_method(options, {"generator": "g", "denoiser": "n"}).method == "optimise"
    assert second_methods(options, {"generator": "g", "denoiser": "n"}) == ()


def test_a_second_method_is_tried_only_where_nothing_was_chosen() -> None:
    assert second_methods(Options.model_validate(PLAIN), KIT) == ("directional",)
    for more in ({"strength": 1.0}, {"fast": True}, {"method": "text-diff"}):
        assert second_methods(Options.model_validate(PLAIN | more), KIT) == ()


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("people") / "a.png"
    draw(sample(3, "val"), 128).save(file)
    return file


def test_words_that_clip_sees_and_words_that_it_never_sees(portrait: Path) -> None:
    prompts = ["in a red sweater", "an elephant on a boat"]
    edits = g.edit(str(portrait), prompt=prompts, out=str(portrait.parent / "edits"))
    red, elephant = edits.result().answer["results"]
    assert red["metrics"]["agrees"]
    assert red["method"] == "text-diff"
    assert red["verdict"].startswith("CLIP sees it (")
    assert "tried" not in red
    if not elephant["metrics"]["agrees"]:
        assert set(elephant["tried"]) | {elephant["method"]} == {"text-diff", "directional"}
        assert "other words" in elephant["verdict"]


def test_the_verdict_says_what_clip_says() -> None:
    seen = {"clip_before": 0.1, "clip_after": 0.25, "clip_gain": 0.15, "agrees": True}
    assert verdict(seen) == {"verdict": "CLIP sees it (0.10 before, 0.25 now)"}
    worse = {"clip_before": 0.3, "clip_after": 0.25, "clip_gain": -0.05, "agrees": True}
    assert "was it there already?" in verdict(worse)["verdict"]
    assert "larger --strength" in verdict({**seen, "agrees": False})["verdict"]
    assert verdict({"change": 0.1}) == {}
