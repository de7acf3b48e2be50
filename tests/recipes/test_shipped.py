"""Every recipe in ``recipes/`` is valid, comes back from TOML, and runs with its steps cut."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from guided import studio
from guided.errors import MissingWeights
from guided.recipe import Recipe

pytestmark = pytest.mark.usefixtures("shared_models")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes"
#: Training recipes are run by the tests of training, which know how to cut them.
RECIPES = sorted(path for path in FOLDER.rglob("*.toml") if path.parent.name != "train")
#: Recipes of seconds, which are held to their conditions here.
QUICK = ("edit/any_prompt.toml", "edit/direction.toml", "edit/pink_hair.toml", "edit/turn.toml")
#: Keys that only repeat what is judged: one strength stands for a sweep.
REPEATED = ("sweep",)
#: What a key is cut to, where a recipe asks for more.
CUTS = {"steps": 3, "count": 2, "iterations": 2, "beams": 2, "words": 3, "top": 3}


def _name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def _cut(recipe: Recipe, place: Path) -> Recipe:
    """The recipe with short loops, two images of a folder, no conditions, its own index."""
    data: dict[str, Any] = {key: v for key, v in recipe.data().items() if key != "expect"}
    for table in (data, *(value for value in data.values() if isinstance(value, dict))):
        for key, most in CUTS.items():
            if isinstance(table.get(key), int):
                table[key] = min(table[key], most)
    for folder in (ROOT / name for name in data.get("images", ()) if (ROOT / name).is_dir()):
        (place / "images").mkdir()
        for file in sorted(folder.glob("*.png"))[:2]:
            shutil.copy(file, place / "images")
        data["images"] = [str(place / "images")]
    if "index" in data:  # one left in outputs/ by an earlier run may be another model's
        data["index"] = str(place / "index")
    return Recipe.of(data, "cut recipe")


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=_name)
def test_a_shipped_recipe_is_valid_and_says_what_it_is_for(path: Path) -> None:
    recipe = Recipe.load(path)
    assert recipe.about
    assert Recipe.loads(recipe.dumps()) == recipe
    assert path.parent.name in (recipe.task, "recipes")


@pytest.mark.parametrize("path", [path for path in RECIPES if _name(path) not in QUICK], ids=_name)
def test_a_shipped_recipe_runs(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = _cut(Recipe.load(path), tmp_path).with_(out=str(tmp_path / "out"))
    missing = [need.name for need in studio.plan(recipe).missing]
    if missing:
        pytest.skip(f"{_name(path)} needs {', '.join(missing)}")
    try:
        result = studio.run(recipe).result()
    except MissingWeights as error:
        pytest.skip(f"{_name(path)}: {error}")
    assert result.folder == tmp_path / "out"
    assert (tmp_path / "out" / studio.RUN_FILE).is_file()
    assert not result.answer.get("errors")
    assert studio.load_run(tmp_path / "out").changed_models() == []


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_recipe_keeps_its_word(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    data = Recipe.load(FOLDER / name).data()
    assert data["expect"]
    recipe = Recipe.of({key: value for key, value in data.items() if key not in REPEATED}, name)
    result = studio.run(recipe.with_(out=str(tmp_path / "out"))).result()
    assert result.failed_expectations == []
