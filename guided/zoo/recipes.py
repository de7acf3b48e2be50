"""Find recipe files by name: in ``recipes`` here, then those that ship with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guided.core import toml
from guided.errors import RecipeError, UsageError, nearest

_PACKAGE = Path(__file__).parents[1]
SUFFIX = ".toml"


def shipped_recipes() -> Path:
    """The folder of shipped recipes: inside an installed package, else beside its source."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def recipe_folders() -> list[Path]:
    """Folders that hold recipes, those of this folder first."""
    places = (Path("recipes").absolute(), shipped_recipes())
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def recipe_files() -> dict[str, Path]:
    """Recipe files by name (``edit/pink_hair``); of two of one name the first folder's."""
    files: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted(folder.rglob(f"*{SUFFIX}")):
            files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return dict(sorted(files.items()))


def find_recipe(given: str | Path, folder: str = "") -> Path:
    """The file of a recipe: a path, or the name of one that ``guided list recipes`` prints.

    A path goes first.  ``edit/pink_hair``, ``edit/pink_hair.toml`` and
    ``recipes/edit/pink_hair.toml`` name the same shipped recipe.  A verb that takes only recipes of
    its own ``folder`` finds them by their last part too.

    Raises:
        UsageError: a name without suffix that is neither a file nor a recipe.
    """
    path = Path(given)
    if path.exists() or path.is_absolute():
        return path
    name = path.as_posix().removeprefix("recipes/")
    files = recipe_files()
    for known in (name, name.removesuffix(SUFFIX), f"{folder}/{name}".removesuffix(SUFFIX)):
        if known in files:
            return files[known]
    if path.suffix:
        return path
    raise UsageError(
        f"There is no file and no recipe {str(given)!r}.",
        hint=f"{_close(name, files)} All: guided list recipes.".strip(),
    )


def _close(name: str, files: dict[str, Path]) -> str:
    """The nearest recipe, by its whole name or its last part."""
    same_end = [known for known in files if known.rpartition("/")[2] == name]
    if same_end:
        return f"Did you mean {same_end[0]!r}?"
    hint = nearest(name, files)
    return hint if hint.startswith("Did you mean") else ""


def with_shipped_files(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A shipped recipe's keys, where texts that name shipped files are absolute paths.

    Shipped recipes name their images as ``recipes/pictures/...``; that is read from the current
    folder where it is there, else from where the recipe itself came from.
    """
    root = shipped_recipes()
    if not path.absolute().is_relative_to(root):
        return dict(table)
    located: dict[str, Any] = _located(dict(table), root.parent)
    return located


def _located(value: Any, root: Path) -> Any:
    if isinstance(value, str):
        shipped = value == "recipes" or value.startswith("recipes/")
        place = root / value
        return str(place) if shipped and not Path(value).exists() and place.exists() else value
    if isinstance(value, dict):
        return {key: _located(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_located(item, root) for item in value]
    return value


def read_text(path: str | Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: no such file, not text, or larger than a recipe can be.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(toml.LARGEST + 1)
        if len(raw) > toml.LARGEST:
            raise RecipeError(f"{path}: larger than {toml.LARGEST // 1024} KiB, so not a recipe.")
        return raw.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RecipeError(
            f"Cannot read the recipe {path}: {reason}.", hint="Recipes: guided list recipes."
        ) from error
