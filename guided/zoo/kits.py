"""Kits: a table that names a model for each role."""

from __future__ import annotations

import tomllib
from pathlib import Path

from guided.core.reading import read_toml
from guided.errors import RecipeError, UsageError, nearest
from guided.zoo.folders import KITS

ROLES = (
    "delta", "denoiser", "directions", "generator", "identity", "inverter", "judge", "language",
    "latent_scorer", "perceptual", "prior", "reader", "scorer", "text_gan", "vae",
)  # fmt: skip
"""What a model can be for."""


def kit_names() -> list[str]:
    """The names of all kits, sorted."""
    return sorted(path.stem for path in KITS.glob("*.toml"))


def load_kit(name: str) -> dict[str, str]:
    """The model names of a kit by role.

    Raises:
        UsageError: no kit of that name; the message names the nearest.
        RecipeError: a kit file with unknown roles or values that are no names.
    """
    if name not in kit_names():
        raise UsageError(f"There is no kit {name!r}.", hint=nearest(name, kit_names()))
    return read_kit(KITS / f"{name}.toml")


def about_kit(name: str) -> str:
    """What a kit is for, in a sentence.

    Raises:
        UsageError: no kit of that name.
    """
    load_kit(name)
    return str(_table(KITS / f"{name}.toml").get("about", ""))


def kit_world(name: str) -> str:
    """The name of the world that a kit's images are of; empty where it names none.

    Raises:
        UsageError: no kit of that name.
        RecipeError: a value that is no name.
    """
    load_kit(name)
    world = _table(KITS / f"{name}.toml").get("world", "")
    if not isinstance(world, str):
        raise RecipeError(f"The kit {name!r} must give 'world' a name, not {world!r}.")
    return world


def read_kit(path: Path) -> dict[str, str]:
    """The model names in a kit file by role.

    Raises:
        RecipeError: no TOML, no table ``roles``, an unknown role or a value that is no name.
    """
    table = _table(path)
    extra = sorted(set(table) - {"about", "roles", "world"})
    roles = table.get("roles")
    if extra or not isinstance(roles, dict):
        wrong = f"the unknown key {extra[0]!r}" if extra else "no table 'roles'"
        raise RecipeError(
            f"{path} has {wrong}.", hint="A kit has 'about', 'world' and the table 'roles'."
        )
    for role, model in roles.items():
        if role not in ROLES:
            raise RecipeError(f"{path} has the unknown role {role!r}.", hint=nearest(role, ROLES))
        if not isinstance(model, str) or not model:
            raise RecipeError(f"{path} must name a model for {role!r}, not {model!r}.")
    return dict(roles)


def _table(path: Path) -> dict[str, object]:
    try:
        return read_toml(path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as a kit ({error}).") from error
