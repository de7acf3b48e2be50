"""``guided list WHAT``: what there is, known without loading any of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from guided.cli.options import watching_parameters
from guided.cli.watch import say, speak_logs
from guided.errors import UsageError, nearest

_PACKAGE = Path(__file__).parents[1]


def _first_line(path: Path) -> str:
    """The first line of a module's docstring, without importing it."""
    head = re.match(r'\s*[rR]?"""(.+?)(?:\n|""")', path.read_text(encoding="utf-8"))
    return head[1].strip() if head else ""


def _modules(folder: str) -> list[dict[str, Any]]:
    """The public files of a folder of the package, with their helps."""
    files = sorted((_PACKAGE / folder).glob("[a-z]*.py"))
    return [{"name": path.stem, "about": _first_line(path)} for path in files]


def _tasks() -> list[dict[str, Any]]:
    return [entry for entry in _modules("tasks") if entry["name"] != "base"]


def _losses() -> list[dict[str, Any]]:
    return _modules("losses")


def _generators() -> list[dict[str, Any]]:
    return _modules("generators")


def _scorers() -> list[dict[str, Any]]:
    return _modules("scorers")


def _worlds() -> list[dict[str, Any]]:
    return [{"name": "portraits", "about": _first_line(_PACKAGE / "portraits" / "__init__.py")}]


def recipe_folders() -> list[Path]:
    """Folders that hold recipes: ``recipes`` here, and the one beside the package's source."""
    places = (Path("recipes").absolute(), _PACKAGE.parent / "recipes")
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _recipes() -> list[dict[str, Any]]:
    from guided.core import toml
    from guided.errors import RecipeError
    from guided.recipe import read_text

    listed = []
    for folder in recipe_folders():
        for path in sorted(folder.rglob("*.toml")):
            try:
                table = toml.parse(read_text(path), path.name)
            except RecipeError as error:
                table = {"about": str(error)}
            about = str(table.get("about", ""))
            listed.append({"name": str(path), "task": str(table.get("task", "")), "about": about})
    return listed


def _kits() -> list[dict[str, Any]]:
    from guided.zoo.kits import about_kit, kit_names, load_kit

    return [
        {"name": name, "about": about_kit(name), "roles": load_kit(name)} for name in kit_names()
    ]


def _models() -> list[dict[str, Any]]:
    from guided.zoo.finding import catalogue

    return [
        {
            "name": card.name,
            "role": card.role,
            "place": found.place if found else "not here",
            "licence": card.licence,
        }
        for card, found in catalogue()
    ]


def _runs() -> list[dict[str, Any]]:
    from guided.studio import history

    return history()


LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "generators": _generators,
    "kits": _kits,
    "losses": _losses,
    "models": _models,
    "recipes": _recipes,
    "runs": _runs,
    "scorers": _scorers,
    "tasks": _tasks,
    "worlds": _worlds,
}


def _list(**values: Any) -> int:
    """List tasks, recipes, losses, models, runs ...

    WHAT is tasks, recipes, losses, generators, scorers, kits, models, worlds or runs.
    """
    speak_logs()
    what = values["what"]
    if what not in LISTS:
        raise UsageError(f"There is no list of {what!r}.", hint=nearest(what, LISTS))
    entries = LISTS[what]()
    if values["as_json"]:
        say({values["what"]: entries}, as_json=True)
        return 0
    width = max((len(str(next(iter(entry.values())))) for entry in entries), default=0)
    for entry in entries:
        first, *others = entry.values()
        told = "  ".join(str(other) for other in others if not isinstance(other, dict) and other)
        click.echo(f"{str(first).ljust(width)}  {told}".rstrip())
    if not entries:
        click.echo(f"no {values['what']}", err=True)
    return 0


listing = click.Command(
    "list",
    callback=_list,
    help=_list.__doc__,
    params=[
        click.Argument(["what"], metavar="WHAT"),
        *watching_parameters(),
    ],
)
