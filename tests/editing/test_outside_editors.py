"""Editors from outside the package: an entry point, a module, a class of a script."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import guided
from guided import studio
from guided.editing import EDITORS
from guided.errors import CannotDo, RecipeError, UsageError
from guided.recipe import Recipe
from tests.editing.outside import Tint
from tests.helpers.installed import install
from tests.helpers.tiny_clip import write_clip


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"local-dir:{write_clip(tmp_path_factory.mktemp('models') / 'clip')}"


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    Image.new("RGB", (24, 20), (100, 100, 100)).save(tmp_path / "gray.png")
    return tmp_path / "gray.png"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the user's that adds ``tint`` by an entry point."""
    install(tmp_path, monkeypatch, "guided.editors", tint="tests.editing.outside:Tint")


def color(path: str | Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (20, 24, 3)
    assert (pixels == pixels[0, 0]).all()
    return tuple(int(each) for each in pixels[0, 0])


def edited(gray: Path, scorer: str, **options: Any) -> dict[str, Any]:
    given = {"scorer": scorer, "device": "cpu", "prompt": ["red paint"], **options}
    (row,) = guided.edit(str(gray), **given).result().answer["results"]
    return row


QUARTER = (139, 75, 75)


def test_an_entry_point_is_used_from_the_command_line_a_recipe_and_python(
    installed: None, scorer: str, gray: Path, tmp_path: Path, guided_cli: Callable
) -> None:
    assert "tint" in guided_cli("list", "editors").out.split()
    told = guided_cli("edit", gray, "--prompt", "red paint", "--method", "tint", "--scorer", scorer,
                      "--set", "tint.amount=0.25", "--sweep", 0.5, "--strip", "--device", "cpu",
                      "--out", tmp_path / "cli", "--json")  # fmt: skip
    assert told.status == 0, told.err
    (row,) = told.answer["results"]
    assert color(row["image"]) == QUARTER
    assert {"clip_gain", "change"} <= set(row["metrics"])
    assert {"sweep", "strip"} <= set(row)
    recipe = Recipe.load(tmp_path / "cli" / "recipe.toml")
    assert recipe.data()["tint"] == {"amount": 0.25}
    (again,) = studio.run(recipe.with_(out=str(tmp_path / "again"))).result().answer["results"]
    assert color(again["image"]) == QUARTER
    one = edited(gray, scorer, method="tint", tint={"amount": 0.25}, out=str(tmp_path / "py"))
    other = edited(gray, scorer, method=Tint(amount=0.25), out=str(tmp_path / "object"))
    assert color(one["image"]) == color(other["image"]) == QUARTER
    assert other["method"] == "tint"


def test_a_class_of_a_module_or_a_script_is_used_as_an_object(
    scorer: str, gray: Path, tmp_path: Path
) -> None:
    class Own(Tint):
        """Defined where it is used."""

    for number, method in enumerate(
        (Tint(amount=0.25), Own(amount=0.25), "tests.editing.outside:Tint")
    ):
        more = {"tint": {"amount": 0.25}} if isinstance(method, str) else {}
        out = tmp_path / str(number)
        row = edited(gray, scorer, method=method, out=str(out), **more)
        assert color(row["image"]) == QUARTER
        again = studio.rerun(out, out=str(tmp_path / f"{number}-again")).result()
        assert color(again.answer["results"][0]["image"]) == QUARTER
    auto = edited(gray, scorer, method=Tint(), strength="auto", out=str(tmp_path / "auto"))
    assert auto["strength"] in Tint.tried


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": Tint(), "cfg": 3.5}, "--cfg is an option of the method .*, not of tint"),
        ({"method": "delta", "cfg": 3.0}, "--cfg is an option of the method .*, not of delta"),
        ({"method": "tint", "tint": {"amuont": 0.2}}, "'tint': amuont: unknown key"),
        ({"method": "tint", "tint": {"amount": 2.0}}, "'tint': amount: .*less than or equal to 1"),
        ({"method": "tint", "p2p": {"cfg": 2.0}}, r"\[p2p\] is the table of the method p2p"),
        ({"method": "delta", "tint": {"amount": 0.2}}, r"\[tint\] is the table of .* tint, not of"),
        ({"method": "tant"}, "There is no editor 'tant'"),
        ({"method": "p2p", "tunt": {"amount": 0.2}}, "unknown key 'tunt'"),
        ({"method": "no_such_package:Own"}, "'no_such_package:Own' is not here: No module named"),
        ({"method": "pathlib:Path"}, "which is no Editor"),
        ({"method": "guided.editing.denoising:PartialEditor"}, "does not say denoised"),
        ({"method": "tint", "loss": [{"kind": "clip"}]}, "--method tint follows no losses"),
        ({"method": "tint", "strength": -1.0}, "has no opposite"),
        ({"method": "tint", "gif": 2}, "no change that could be animated"),
    ],
)
def test_what_an_editor_does_not_take_is_refused_by_name(
    installed: None, options: dict[str, Any], message: str, gray: Path, scorer: str
) -> None:
    with pytest.raises((RecipeError, UsageError, CannotDo), match=message):
        edited(gray, scorer, **options)


def test_options_of_this_package_s_methods_are_told_apart(guided_cli: Callable) -> None:
    shown = guided_cli("edit", "--help").out
    assert "Options of p2p:" in shown
    assert "--denoise-steps" not in shown
    printed = guided_cli("edit", "a.png", "--prompt", "x", "--method", "turn", "--steps", 9,
                         "--print-recipe")  # fmt: skip
    assert 'method = "text-diff"' in printed.out
    assert Recipe.loads(printed.out).data()["text_diff"]["steps"] == 9
    assert "called text-diff now" in printed.err
    wrong = guided_cli("edit", "a.png", "--prompt", "x", "--method", "delta", "--reweight", "a=2")
    assert wrong.status == 2
    assert "--reweight is an option of the method p2p, not of delta" in wrong.err
    usual = guided_cli("edit", "a.png", "--prompt", "x", "--method", "delta", "--cfg", 3)
    assert usual.status == 2, "another method's default was dropped"


def test_recipes_of_0_1_0_are_understood() -> None:
    """Their keys all stood beside one another, with their defaults."""
    flat = {
        "steps": 100, "rate": 0.1, "space": "auto", "mapper": "", "delta": "", "reweight": [],
        "statistics": "", "alpha": 4.1, "refine_steps": 30, "refine_rate": 0.03, "near": 0.002,
    }  # fmt: skip
    old = {"task": "edit", "images": ["a.png"], "prompt": ["x"], **flat, "denoise_steps": 13}
    assert Recipe.of({**old, "method": "p2p"}).data()["p2p"]["steps"] == 13
    assert Recipe.of({**old, "denoise_steps": 30, "method": "refine"}).data()["refine"] == {
        "steps": 30, "rate": 0.03, "amount": 0.6, "delta": "", "template": [], "truncation": 0.7,
        "invert": "encoder", "invert_steps": 300,
    }  # fmt: skip
    with pytest.raises(RecipeError, match="--denoise-steps is an option of"):
        Recipe.of({**old, "method": "delta"})


# ------------------------------------------------------------------ recipes of others


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module on the path that leaves a mark when it is imported."""
    name = "guided_editor_trap"
    (tmp_path / f"{name}.py").write_text(
        f"open({str(tmp_path / 'mark')!r}, 'w').close()\n"
        "from tests.editing.outside import Tint as Trap\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_a_picture_cannot_have_an_editor_s_module_imported(
    trap: str, tmp_path: Path, guided_cli: Callable
) -> None:
    recipe = f'task = "edit"\nprompt = ["a"]\nmethod = "{trap}:Trap"\n'
    info = PngInfo()
    info.add_itxt("guided.recipe", recipe)
    info.add_itxt("guided.lineage", '{"version": 1, "picture": {"id": "1", "name": "p.png"}}')
    picture = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(picture, pnginfo=info)
    wish = f"run code of the module {trap} (the method {trap}:Trap)"
    assert wish in studio.load_run(picture).consent_requests
    with pytest.raises(UsageError, match=f"run code of the module {trap}"):
        studio.rerun(picture)
    (tmp_path / "recipe.toml").write_text(recipe)
    for words in (("show", picture), ("rerun", picture), ("check", tmp_path / "recipe.toml")):
        guided_cli(*words)
    assert not EDITORS.is_at_hand(f"{trap}:Trap")
    assert not (tmp_path / "mark").exists()
