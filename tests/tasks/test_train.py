from __future__ import annotations

from pathlib import Path

import pytest

from guided.cli.commands import recipe_of
from guided.errors import RecipeError
from guided.recipe import Recipe
from guided.tasks import train
from guided.tasks.base import TaskContext
from guided.training.registry import objective_class, validated, world_keys
from tests.helpers import tiny_training as tiny

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "train").glob("*.toml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_training_recipe_is_one(file: Path) -> None:
    recipe = Recipe.load(file)
    assert recipe.task == "train"
    assert Recipe.loads(recipe.dumps()).data() == recipe.data()


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_the_settings_of_every_recipe_fit_a_folder_and_what_is_left_out_is_named(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = Recipe.load(file).options.model_dump()
    world, folder = (
        objective_class(table["objective"], folder=each).Settings for each in (False, True)
    )
    recipe = Recipe.of({"task": "train", "recipe": str(file), "data": str(tmp_path)})
    options = recipe.options
    assert isinstance(options, train.Options)
    validated(folder, options.settings, file.stem)
    left = table["settings"].keys() - options.settings.keys()
    assert not left & folder.model_fields.keys()
    named = [key for key in left if table["settings"][key]]
    assert all(f" {key}" in caplog.text for key in named)
    assert len(caplog.messages) == bool(named)
    if file.stem == "clip":
        assert {"attributes", "claims", "focus", "tokenizer"} <= left
        given = {"settings": {"attributes": 2.0}}
        told = Recipe.of({"task": "train", "recipe": str(file), "data": str(tmp_path), **given})
        with pytest.raises(RecipeError, match=r"attributes = 2.0 needs to know more"):
            validated(folder, told.options.settings, "")  # type: ignore[attr-defined]
    assert Recipe.of({"task": "train", "recipe": str(file)}).options.settings == table["settings"]  # type: ignore[attr-defined]
    assert world is folder or left <= world_keys(table["objective"])


def test_a_recipe_file_is_replaced_by_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        'task = "train"\nobjective = "tiny"\nseed = 4\nlr = 0.5\n[settings]\nnoise = 0.2\n'
    )
    given = {"recipe": str(file), "lr": 0.25, "settings": {"plain": True}, "samples": 8}
    recipe = Recipe.of({"task": "train", **given})
    options = recipe.options
    assert isinstance(options, train.Options)
    assert options.recipe is None
    assert (options.objective, options.lr, options.samples) == ("tiny", 0.25, 8)
    assert options.settings == {"noise": 0.2, "plain": True}
    assert recipe.seed == 4
    assert Recipe.of({"task": "train", **given, "seed": 0}).seed == 0
    file.unlink()
    kept = Recipe.of({"task": "train", **given | {"recipe": ""}, "objective": "tiny"})
    assert kept.options.samples == 8  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = 'edit'\n", "recipe for 'edit', not for train.*guided run"),
        ("lr = \n", "Cannot read the training recipe"),
        ("lr = -1\n", "lr = -1: input should be greater than 0"),
        ("learning = 1\n", "unknown key 'learning'"),
    ],
)
def test_wrong_recipe_files_are_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        Recipe.of({"task": "train", "recipe": str(file)})


def test_the_seed_that_an_older_run_kept_is_still_its_seed() -> None:
    old = {"task": "train", "objective": "tiny", "recipe_seed": 4}
    assert [Recipe.of({**old, "seed": seed}).seed for seed in (0, 7)] == [4, 7]


def test_the_command_line_changes_one_leaf_of_a_recipe_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        'objective = "tiny"\nseed = 4\n[settings]\nx = 1\nsizes = [8, 16]\n'
        "[settings.a]\nb = 2\n[settings.a.c]\nd = 3\ne = 4\n"
    )
    changes = (
        "settings.a.c.d=9", "settings.a.f=5", "settings.sizes.1=32", "samples=8",
        "settings.x={ y = 1 }",
    )  # fmt: skip
    recipe = recipe_of("train", {"recipe": str(file), "seed": 0, "overrides": changes})
    assert recipe.seed == 0
    assert recipe.data()["settings"] == {
        "x": {"y": 1}, "sizes": [8, 32], "a": {"b": 2, "c": {"d": 9, "e": 4}, "f": 5},
    }  # fmt: skip
    assert recipe_of("train", {"recipe": str(file), "overrides": ()}).seed == 4


def test_the_verb_trains_and_gives_the_files(tmp_path: Path) -> None:
    table = tiny.recipe(tmp_path, samples=80)
    del table["device"]
    table["betas"] = list(table.get("betas", (0.9, 0.99)))
    recipe = Recipe.of({"task": "train", **table})
    steps = train.run(recipe.options, TaskContext(seed=3, device_name="cpu"))  # type: ignore[arg-type]
    seen, result = tiny.rest(steps)
    assert seen[-1].index == 10
    assert result.answer["finished"]
    assert set(result.files) >= {"model.safetensors", "card.toml", "losses.csv", "curve.png"}
    assert b"data_seed = 3" in result.files["card.toml"]
