"""Seeds beyond 2^53 are kept exactly in every record of a run, and read back from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import guided
from guided.core import lineage
from guided.recipe import Recipe
from guided.studio import history, load_run
from guided.zoo.cards import card_from, read_card, write_card

LAST = 2**64 - 1


@pytest.mark.parametrize("given", [LAST, str(LAST)])
def test_a_recipe_keeps_its_seed(given: Any) -> None:
    recipe = Recipe.of({"task": "portraits", "seed": given})
    assert recipe.seed == LAST
    assert recipe.data()["seed"] == str(LAST)
    assert Recipe.loads(recipe.dumps()) == recipe
    assert Recipe.loads(f'task = "portraits"\nseed = {LAST}\n') == recipe
    assert Recipe.loads('task = "portraits"\n', overrides=[f"seed={LAST}"]) == recipe
    assert Recipe.of({"task": "portraits", "seed": 2**53}).data()["seed"] == 2**53


def test_a_run_of_the_last_seed_wraps_says_so_and_is_repeated(
    guided_cli: Callable[..., Any], tmp_path: Path
) -> None:
    words = ["portraits", "--seed", LAST, "--count", 3, "--size", 64, "--json"]
    made = guided_cli(*words, "--out", tmp_path / "one")
    assert made.status == 0, made.err
    assert made.err.count("seeds start again from 0") == 1
    files = sorted((tmp_path / "one").glob("*.png"))
    assert [file.name for file in files] == [
        "train-000000-64.png", "train-000001-64.png", f"train-{LAST}-64.png"
    ]  # fmt: skip
    known = lineage.read(files[-1])
    assert known is not None
    assert known.picture.note["world_seed"] == str(LAST)
    assert f'seed = "{LAST}"' in known.picture.recipe
    assert load_run(files[-1]).recipe.seed == load_run(tmp_path / "one").recipe.seed == LAST
    assert [row["seed"] for row in history(tmp_path)] == [LAST]
    before = [file.stat().st_mtime_ns for file in files]
    again = guided_cli(*words, "--out", tmp_path / "one")  # goes on, with nothing left to draw
    assert again.status == 0, again.err
    assert [file.stat().st_mtime_ns for file in files] == before
    assert len(list((tmp_path / "one").glob("*.png"))) == 3
    repeated = guided_cli("rerun", files[-1], "--out", tmp_path / "two")
    assert repeated.status == 0, repeated.err
    assert (tmp_path / "two" / files[-1].name).read_bytes() == files[-1].read_bytes()


def test_the_command_line_names_the_limit(guided_cli: Callable[..., Any], tmp_path: Path) -> None:
    for bad in (LAST + 1, -1, "7.5", "x"):
        said = guided_cli("portraits", "--seed", bad, "--out", tmp_path / "no")
        assert said.status == 2
        assert "a whole number from 0 to 18446744073709551615 (2^64 - 1)" in said.err
    assert not (tmp_path / "no").exists()


def test_python_takes_both_forms(tmp_path: Path) -> None:
    one, two = (
        guided.portraits(count=1, seed=seed, size=64).result() for seed in (LAST, str(LAST))
    )
    assert one.images[0].tobytes() == two.images[0].tobytes()
    with pytest.raises(guided.errors.RecipeError, match="from 0 to 18446744073709551615"):
        guided.portraits(count=1, seed=LAST + 1)


def test_a_card_keeps_the_seed_of_its_data(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    table = {"name": "a", "role": "scorer", "kind": "clip", "file": "a.safetensors",
             "licence": "x", "origin": "public", "source": "x", "data_seed": LAST}  # fmt: skip
    card = card_from(table, "")
    write_card(card, path)
    assert f'data_seed = "{LAST}"' in path.read_text()
    assert read_card(path) == card


def test_answers_hold_large_numbers_as_text(tmp_path: Path) -> None:
    out = tmp_path / "out"
    guided.portraits(count=1, seed=LAST, size=64, out=str(out)).result()
    record = json.loads((out / "run.json").read_text())
    assert all(abs(number) <= 2**53 for number in _numbers(record))


def _numbers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int) else []
