"""A verb of another installed package: on the command line, in recipes and in Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import guided
from guided import studio
from guided.recipe import Recipe
from guided.tasks import task_help, task_modules
from tests.helpers.installed import install


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An image, and a package of the user's that adds the verb ``average`` by an entry point."""
    verb = "tests.generic.outside_verb"
    install(tmp_path, monkeypatch, "guided.tasks", average=verb, edit=verb)
    Image.new("RGB", (6, 4), (10, 200, 30)).save(tmp_path / "green.png")
    return str(tmp_path / "green.png")


def test_it_is_a_command(guided_cli: Callable, image: str, tmp_path: Path) -> None:
    ran = guided_cli("average", image, "--side", 5, "--out", tmp_path / "made", "--json")
    assert ran.status == 0, ran.err
    with Image.open(json.loads(ran.out)["image"]) as square:
        assert (square.size, square.getpixel((0, 0))) == ((5, 5), (10, 200, 30))
    assert "average" in guided_cli("--help").out
    assert "the side of the square" in guided_cli("average", "--help").out
    wrong = guided_cli("average", image, "--side", 0)
    assert wrong.status == 2
    assert "side" in wrong.err


def test_it_is_a_recipe_and_a_function(image: str, tmp_path: Path) -> None:
    recipe = Recipe.of({"task": "average", "image": image, "side": 2, "out": str(tmp_path / "a")})
    assert Recipe.loads(recipe.dumps()) == recipe
    result = studio.run(recipe).result()
    assert result.images[0].size == (2, 2)
    again = studio.rerun(tmp_path / "a" / "square.png", save=False, trust=True).result()
    assert again.images[0].tobytes() == result.images[0].tobytes()
    assert guided.average(image, side=3).result().images[0].size == (3, 3)


def test_verbs_of_this_package_stay_its_own(image: str) -> None:
    assert task_modules()["edit"] == "guided.tasks.edit"
    assert task_help("average").startswith("Draw the average color")
    assert task_help("no-such-verb") == ""
