"""NaN and infinity are refused where they are given, where they arise, and in every answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel

from guided.core.device import Device
from guided.core.finite import check_answer, not_finite
from guided.core.run import Result, Step
from guided.errors import CannotDo, RecipeError, ShapeError
from guided.guidance.optimise import optimise
from guided.guidance.updates import adam
from guided.recipe import Recipe, models_in, task_options
from guided.retrieval.shards import Shard, read_shard, write_shard
from guided.run_folder import _line
from guided.scorers.user_model import scorer_of
from guided.studio import running
from guided.tasks import task_names
from tests.tasks.scoring import paint

NAN, INFINITY = float("nan"), float("inf")


def _floats(options: type[BaseModel], place: str = "") -> list[tuple[str, bool]]:
    """The keys of options that hold numbers, those of tables after the table's name."""
    found = []
    for key, field in options.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        if float in kinds:
            found.append((place + key, field.annotation == list[float]))
        for table in models_in(field.annotation):
            if not place and table.__name__ != "LossTable":
                found += _floats(table, f"{key}.")
    return found


KEYS = [(verb, *key) for verb in task_names() for key in _floats(task_options(verb))]


def test_the_keys_are_those_that_one_would_think_of() -> None:
    names = {(verb, key) for verb, key, _ in KEYS}
    assert {("edit", "sweep"), ("generate", "cfg"), ("vary", "amount")} <= names
    assert {("search", "weight"), ("edit", "direction.beta")} <= names


@pytest.mark.parametrize(("verb", "key", "several"), KEYS)
@pytest.mark.parametrize("value", [NAN, -INFINITY])
def test_no_option_takes_what_is_not_finite(
    verb: str, key: str, several: bool, value: float
) -> None:
    table, _, name = key.rpartition(".")
    own: dict[str, Any] = {name: [value] if several else value}
    with pytest.raises(RecipeError, match=rf"{name}.* = .*: must be a finite number"):
        Recipe.of({"task": verb, **({table: own} if table else own)}, "test")


@pytest.mark.parametrize(
    "text",
    ["strength = nan", "[[loss]]\nkind = 'clip'\nweight = inf",
     "[[loss]]\nkind = 'latent_l2'\nexponent = nan", "[expect]\n'a.b' = {at_least = nan}"],
)  # fmt: skip
def test_nor_does_a_recipe(text: str) -> None:
    with pytest.raises(RecipeError, match="must be a finite number"):
        Recipe.loads(f"task = 'edit'\nimages = ['a.png']\n{text}")


def test_the_place_is_named() -> None:
    assert not_finite({"a": [1.0, {"b": (0.5, NAN)}], "c": "nan", "d": None}) == "a 2.b 2 = nan"
    check_answer({"results": [{"score": 1e308, "file": "inf"}]})


def test_no_answer_holds_what_is_not_finite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(options: Any, ctx: Any) -> Any:
        yield Step(1, 1)
        return Result({"results": [{"score": INFINITY}]})

    module = SimpleNamespace(run=run)
    monkeypatch.setattr(running, "task_module", lambda name: module)
    recipe = Recipe.of({"task": "read", "images": ["a.png"]})
    for save in (False, True):
        with pytest.raises(CannotDo, match=r"results 1\.score = inf"):
            running.run(recipe.with_(out=str(tmp_path)), save=save).result()
    assert not list(tmp_path.glob("run*.json"))


def test_a_steps_line_leaves_out_what_is_not_finite() -> None:
    line = json.loads(_line(Step(1, 2, "denoise", {"clip": NAN, "total": 0.5})))
    assert line["losses"] == {"total": 0.5}


def test_a_loss_that_is_not_finite_stops_the_loop_at_its_step() -> None:
    def objective(draft: torch.Tensor) -> Any:
        objective.calls += 1  # type: ignore[attr-defined]
        value = draft.square().sum(1) * (NAN if objective.calls == 3 else 1.0)  # type: ignore[attr-defined]
        return value, {"clip": value}

    objective.calls = 0  # type: ignore[attr-defined]
    loop = optimise({"w": torch.ones(1, 2)}, lambda leaves, _: leaves["w"], objective, adam(0.1), 9)  # type: ignore[arg-type]
    with pytest.raises(CannotDo, match=r"loss 'clip' is not finite at step 3 of 9.*Lower"):
        list(loop)


class Unsound:
    """A user's scorer that fails on texts or on images."""

    def __init__(self, texts: float, images: float) -> None:
        self.texts, self.images = texts, images

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.full((len(texts), 4), self.texts)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.full((len(images), 4), self.images)


def test_a_users_scorer_must_give_finite_numbers(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match=r"'mine' gave an embedding of one of the texts.*not finite"):
        scorer_of(Unsound(NAN, 1.0), Device("cpu"), "mine")
    scorer = scorer_of(Unsound(1.0, NAN), Device("cpu"), "mine")
    with pytest.raises(CannotDo, match="embedding of an image that is not finite"):
        scorer.embed_images(torch.ones(2, 3, 4, 4))
    with pytest.raises(CannotDo, match="not finite"):
        list(scorer.embed_files(paint(tmp_path, 2)))
    sound = scorer_of(Unsound(1.0, 1.0), Device("cpu"), "mine")
    assert math.isnan(float(sound.embed_images(torch.full((1, 3, 4, 4), NAN))[0, 0]))


def test_the_rows_of_an_index_are_finite(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="vectors must be finite"):
        write_shard(tmp_path, 1, torch.tensor([[NAN, 1.0]]))
    shard = write_shard(tmp_path, 1, torch.ones(2, 3))
    data = torch.tensor([[1.0, NAN, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float16).numpy().tobytes()
    (tmp_path / shard.file).write_bytes(data)
    import hashlib

    unsound = Shard(1, shard.file, 2, hashlib.sha256(data).hexdigest())
    assert read_shard(tmp_path, unsound, 3) == "it holds numbers that are not finite"
