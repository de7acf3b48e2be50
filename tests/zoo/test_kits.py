"""Kits: a model for each role."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from guided.errors import RecipeError, UsageError
from guided.zoo import folders, kits, resolve


def test_every_kit_loads_and_photo_names_public_cards() -> None:
    assert kits.kit_names() == ["photo", "portraits"]
    for name in kits.kit_names():
        assert set(kits.load_kit(name)) <= set(kits.ROLES)
        assert kits.about_kit(name)
    for role, model in kits.load_kit("photo").items():
        card = resolve.public_card(model)
        assert card is not None
        assert resolve.serves(card, role), (role, model)


def test_wrong_kits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no kit 'photos'\. Did you mean 'photo'"):
        kits.load_kit("photos")
    path = tmp_path / "kit.toml"
    for text, said in (
        ("x = 1", "unknown key 'x'"),
        ("about = 'a'", "no table 'roles'"),
        ("[roles]\nscorrer = 'a'", "unknown role 'scorrer'. Did you mean 'scorer'"),
        ("[roles]\nscorer = 3", "must name a model for 'scorer', not 3"),
        ("[roles", "cannot be read as a kit"),
    ):
        path.write_text(text)
        with pytest.raises(RecipeError, match=said):
            kits.read_kit(path)


def test_kits_are_toml() -> None:
    for path in folders.KITS.glob("*.toml"):
        assert set(tomllib.loads(path.read_text())) - {"world"} == {"about", "roles"}
