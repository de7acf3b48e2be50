"""Captioners from outside the package, and what holds of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import guided
from guided import studio
from guided.captioning import CAPTIONERS
from guided.captioning.base import Captioner
from guided.core.keys import option
from guided.errors import RecipeError, UsageError
from guided.guidance.decode import Guide, Proposal, Rows
from guided.recipe import Recipe
from tests.helpers import caption_models
from tests.helpers.installed import install

# Fixtures.
one_thread = caption_models.one_thread
clip_folder = caption_models.clip_folder
language_folder = caption_models.language_folder


class Spelling(Captioner):
    """Writes the tokens of one text, whatever the image shows."""

    says: str = option("what every caption says", " a hat.")

    def guide(self, models: Any, config: Any, objective: Any) -> Guide:
        """One token after another."""
        tokens = [*models.language.encode(self.says), config.end]

        class Fixed:
            def propose(self, rows: Rows) -> Proposal:
                """Nothing else has a chance."""
                odds = torch.full((len(rows.tokens), models.language.vocabulary), -50.0)
                odds[:, tokens[min(rows.index, len(tokens) - 1)]] = 0.0
                return Proposal(odds)

        return Fixed()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the user's that adds ``spelling`` by an entry point."""
    target = "tests.generic.test_captioners:Spelling"
    install(tmp_path, monkeypatch, "guided.captioners", spelling=target)


@pytest.fixture
def models(clip_folder: Path, language_folder: Path) -> dict[str, str]:
    return {"scorer": f"local-dir:{clip_folder}", "language": f"local-dir:{language_folder}",
            "device": "cpu"}  # fmt: skip


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    Image.new("RGB", (24, 20), (100, 100, 100)).save(tmp_path / "gray.png")
    return tmp_path / "gray.png"


def text_of(answer: dict[str, Any]) -> str:
    (row,) = answer["results"]
    text: str = row["captions"][0]["text"]
    return text


def test_an_entry_point_is_used_from_the_command_line_a_recipe_and_python(
    installed: None, models: dict[str, str], gray: Path, tmp_path: Path, guided_cli: Callable
) -> None:
    assert {"fuse", "spelling", "zerocap"} <= set(guided_cli("list", "captioners").out.split())
    words = [word for key, value in models.items() for word in (f"--{key}", value)]
    told = guided_cli("caption", gray, "--method", "spelling", "--set", 'spelling.says=" dog"',
                      *words, "--beams", 1, "--length", 8, "--out", tmp_path / "cli",
                      "--json")  # fmt: skip
    assert told.status == 0, told.err
    assert text_of(told.answer).endswith("dog")
    recipe = Recipe.load(tmp_path / "cli" / "recipe.toml")
    assert recipe.data()["spelling"] == {"says": " dog"}
    again = studio.run(recipe.with_(out=str(tmp_path / "again"))).result()
    assert text_of(again.answer) == text_of(told.answer)
    given = {**models, "beams": 1, "length": 8}
    for method in ("spelling", Spelling(), f"{__name__}:Spelling"):
        made = guided.caption(str(gray), method=method, **given).result()
        assert text_of(made.answer).endswith("hat.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fuse", "rate": 0.5}, "--rate is an option of the method zerocap, not of fuse"),
        ({"method": "spelling", "spelling": {"say": "x"}}, "'spelling': say: unknown key"),
        ({"method": "spelled"}, "There is no captioner 'spelled'"),
        (
            {"method": "spelling", "loss": [{"kind": "fluency"}]},
            "--method spelling follows no losses",
        ),
    ],
)
def test_what_a_captioner_does_not_take_is_refused_by_name(
    installed: None, options: dict[str, Any], message: str, gray: Path, models: dict[str, str]
) -> None:
    with pytest.raises((RecipeError, UsageError), match=message):
        guided.caption(str(gray), **models, **options).result()


def test_the_old_option_is_understood() -> None:
    old = {"task": "caption", "images": ["a.png"], "rate": 0.3, "mode": "optimise"}
    recipe = Recipe.of(old)
    assert recipe.data()["method"] == "zerocap"
    assert recipe.data()["zerocap"]["rate"] == 0.3
    assert Recipe.of({**old, "mode": "fuse", "rate": None}).data()["method"] == "fuse"


@pytest.mark.parametrize("name", CAPTIONERS.files())
def test_a_captioner_writes_about_each_image_by_itself(
    name: str, models: dict[str, str], gray: Path, tmp_path: Path
) -> None:
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "round.png")
    files = [str(gray), str(tmp_path / "round.png")]
    given = {**models, "beams": 2, "length": 3, "method": name}
    both = guided.caption(*files, **given).result().answer["results"]
    alone = guided.caption(files[1], **given).result().answer["results"]
    assert [c["text"] for c in both[1]["captions"]] == [c["text"] for c in alone[0]["captions"]]
    for each, other in zip(both[1]["captions"], alone[0]["captions"], strict=True):
        assert each["total"] == pytest.approx(other["total"], abs=1e-4)
