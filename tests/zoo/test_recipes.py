"""Recipes by name: here, beside the package's source, and inside an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from guided.errors import UsageError
from guided.recipe import Recipe
from guided.zoo import recipes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package as a wheel lays it out: its own files, and what the wheel is told to include."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = wheel["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["guided"]
    site = tmp_path / "site-packages"
    (site / "guided").mkdir(parents=True)
    for path in (ROOT / "guided").iterdir():
        if path.name != "__pycache__":
            (site / "guided" / path.name).symlink_to(path)
    for source, target in wheel["force-include"].items():
        (site / target).symlink_to(ROOT / source)
    return site


def _guided(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-P", "-c", "from guided.cli import main; main()", *words],
        capture_output=True, text=True, cwd=folder, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_an_installed_package_lists_its_recipes_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    done = _guided(installed, tmp_path / "empty", "list", "recipes", "--json")
    assert done.returncode == 0, done.stderr
    names = [entry["name"] for entry in json.loads(done.stdout)["recipes"]]
    files = (ROOT / "recipes").rglob("*.toml")
    assert names == sorted(
        path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in files
    )


def test_an_installed_recipe_runs_with_its_images_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    done = _guided(installed, tmp_path / "empty", "run", "classify/hats", "--json")
    assert done.returncode == 0, done.stderr
    files = [Path(entry["file"]) for entry in json.loads(done.stdout)["results"]]
    assert files
    assert all(path.is_relative_to(installed / "guided" / "recipes") for path in files)


def test_each_recipe_is_listed_once_and_the_folder_here_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = recipes.recipe_files()
    own = tmp_path / "recipes" / "edit" / "p2p.toml"
    own.parent.mkdir(parents=True)
    own.write_text('task = "score"\n', "utf-8")
    files = recipes.recipe_files()
    assert list(files) == list(shipped)
    assert files["edit/p2p"] == own
    assert recipes.find_recipe("edit/p2p") == own
    monkeypatch.chdir(ROOT)
    assert recipes.recipe_files() == shipped


@pytest.mark.parametrize("given", ["edit/p2p", "edit/p2p.toml", "recipes/edit/p2p.toml"])
def test_a_shipped_recipe_by_any_of_its_names(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.load(given)
    image = ROOT / "recipes" / "pictures" / "portrait-01.png"
    assert recipe.options.images == [image]  # type: ignore[attr-defined]
    monkeypatch.chdir(ROOT)
    recipe = Recipe.load(given)
    assert recipe.options.images == [image.relative_to(ROOT)]  # type: ignore[attr-defined]


def test_an_unknown_name_leads_to_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, near in (("p2p", "edit/p2p"), ("edit/pink_hari", "edit/pink_hair")):
        with pytest.raises(UsageError, match=f"no recipe '{given}'") as no:
            recipes.find_recipe(given)
        assert no.value.hint == f"Did you mean {near!r}? All: guided list recipes."
    assert recipes.find_recipe("missing.toml") == Path("missing.toml")
    trained = recipes.find_recipe("clip_folder", "train")
    assert trained == recipes.find_recipe("train/clip_folder")


def test_a_recipe_of_the_user_names_no_shipped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = {"images": ["recipes/pictures/portrait-01.png"], "prompt": ["recipes/none"]}
    assert recipes.with_shipped_files(table, tmp_path / "own.toml") == table
    located = recipes.with_shipped_files(table, ROOT / "recipes" / "edit" / "p2p.toml")
    assert located["images"] == [str(ROOT / "recipes" / "pictures" / "portrait-01.png")]
    assert located["prompt"] == table["prompt"]
