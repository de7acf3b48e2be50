from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.core.run import Result
from guided.errors import CannotDo
from guided.language.load import load_language
from guided.training.fit import fit
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits.training.language import LanguageObjective, LanguageSettings

RECIPE = Path(__file__).parents[4] / "recipes" / "train" / "gpt2-portraits.toml"
SMALL = LanguageSettings(vocabulary=400, corpus=200, positions=32, width=16, layers=1, heads=2)


def trained(recipe: dict[str, Any]) -> tuple[Result, list[float]]:
    losses, going = [], fit(recipe)
    while True:
        try:
            losses.append(next(going).losses["loss"])
        except StopIteration as end:
            return end.value, losses


def test_the_recipe_trains_a_model_that_can_be_loaded(tmp_path: Path) -> None:
    recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    recipe.pop("minutes")
    recipe |= {
        "samples": 16 * 30, "batch": 16, "report_steps": 10, "warmup": 32, "lr": 1e-2,
        "monitor_samples": 0, "work": str(tmp_path / "work"), "threads": 1, "nice": 0,
        "settings": SMALL.model_dump(),
    }  # fmt: skip
    result, losses = trained(recipe)
    assert losses[-1] < losses[0] - 0.5
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in result.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    speaker = load_language(f"local-dir:{folder}")
    assert speaker.profile.prompts["caption"] == "a portrait of"
    assert speaker.language.encode(speaker.profile.end) == [speaker.language.begin]
    text = "a person with red hair"
    assert speaker.language.decode(speaker.language.encode(text)) == text
    tokens = torch.tensor([[speaker.language.begin, *speaker.language.encode(text)]])
    assert float(speaker.language.losses(tokens)) < 6.0


def test_rows_begin_texts_and_are_never_read_twice() -> None:
    objective = LanguageObjective(SMALL, TrainingContext(seed=3))
    first = objective.batch(BatchContext(3, 0, 8)).tokens
    second = objective.batch(BatchContext(3, 1, 8)).tokens
    assert first.shape == (8, 33)
    assert (first[:, 0] == objective.config.bos_token_id).all()
    rows = {tuple(row) for row in [*first.tolist(), *second.tolist()]}
    assert len(rows) == 16
    assert torch.equal(first, LanguageObjective(SMALL, TrainingContext(seed=3)).batch(
        BatchContext(3, 0, 8)).tokens)  # fmt: skip


def test_processes_share_a_batch() -> None:
    objective = LanguageObjective(SMALL, TrainingContext())
    whole = objective.batch(BatchContext(0, 5, 8)).tokens
    halves = [objective.batch(BatchContext(0, 5, 8, rank, 2)).tokens for rank in range(2)]
    assert torch.equal(torch.cat(halves), whole)


def test_it_takes_no_data_folder(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match="takes no data folder"):
        LanguageObjective(SMALL, TrainingContext(data=tmp_path))
