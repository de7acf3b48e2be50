"""``guided list WHAT``: what there is, known without loading any of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from guided.cli.console import table
from guided.cli.options import watching_parameters
from guided.cli.watch import say, speak_logs
from guided.core.plugins import Registry
from guided.errors import UsageError, nearest

_PACKAGE = Path(__file__).parents[1]


def _first_line(path: Path) -> str:
    """The first line of a module's docstring, without importing it."""
    head = re.match(r'\s*[rR]?"""(.+?)(?:\n|""")', path.read_text(encoding="utf-8"))
    return head[1].strip() if head else ""


def _implementations(folder: str, *methods: str) -> list[dict[str, Any]]:
    """The files and packages of a folder that define a class with these methods, with their helps.

    Nothing is imported: a class that has what its Protocol asks for is what can be chosen, and the
    helpers beside it are not.
    """
    root, needed = _PACKAGE / folder, set(methods)
    listed: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        part = path.relative_to(root).parts[0]
        tree = ast.parse(path.read_bytes())
        classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
        if any(needed <= {getattr(each, "name", "") for each in known.body} for known in classes):
            package = root / part / "__init__.py"
            listed.setdefault(part.removesuffix(".py"), package if package.is_file() else path)
    return [{"name": name, "about": _first_line(path)} for name, path in listed.items()]


def _tasks() -> list[dict[str, Any]]:
    from guided.tasks import task_help, task_names

    return [{"name": name, "about": task_help(name)} for name in task_names()]


def _losses() -> list[dict[str, Any]]:
    from guided.core.loss_registry import LOSSES

    return _registered(LOSSES)


def _editors() -> list[dict[str, Any]]:
    from guided.editing import EDITORS

    return _registered(EDITORS)


def _captioners() -> list[dict[str, Any]]:
    from guided.captioning import CAPTIONERS

    return _registered(CAPTIONERS)


def _registered(registry: Registry) -> list[dict[str, Any]]:
    own = {name: _first_line(registry.file(name)) for name in registry.files()}
    others = {name: f"from {point.module}" for name, point in registry.points().items()}
    return [{"name": name, "about": about} for name, about in sorted({**own, **others}.items())]


def _objectives() -> list[dict[str, Any]]:
    from guided.training.captioned_images import FEWEST
    from guided.training.registry import objective_points, objectives

    listed = []
    for name, modules in sorted(objectives().items()):
        paths = [_PACKAGE / f"{module.replace('.', '/')}.py" for module in modules]
        worlds = [m.split(".")[1] for m in modules if m.startswith("worlds.")]
        data = ["a folder"] if name in FEWEST else [] if worlds else ["none"]
        about = _first_line(paths[0])
        listed.append({"name": name, "data": ", ".join([*data, *worlds]), "about": about})
    others = objective_points().items()
    return listed + [{"name": name, "data": "", "about": f"from {p.module}"} for name, p in others]


def _generators() -> list[dict[str, Any]]:
    return _implementations("generators", "start", "render")


def _scorers() -> list[dict[str, Any]]:
    return _implementations("scorers", "embed_images", "embed_texts")


def _worlds() -> list[dict[str, Any]]:
    from guided.core.world import world_folders

    return [
        {"name": folder.name, "about": _first_line(folder / "__init__.py")}
        for folder in world_folders()
    ]


def _recipes() -> list[dict[str, Any]]:
    from guided.core import toml
    from guided.errors import RecipeError
    from guided.zoo.recipes import read_text, recipe_files

    listed = []
    for name, path in recipe_files().items():
        try:
            table = toml.parse(read_text(path), path.name)
        except RecipeError as error:
            table = {"about": str(error)}
        about = str(table.get("about", ""))
        listed.append({"name": name, "task": str(table.get("task", "")), "about": about})
    return listed


def _kits() -> list[dict[str, Any]]:
    from guided.zoo.kits import about_kit, kit_names, load_kit

    return [
        {"name": name, "about": about_kit(name), "roles": load_kit(name)} for name in kit_names()
    ]


def _models() -> list[dict[str, Any]]:
    from guided.zoo.resolve import catalogue

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
    "captioners": _captioners,
    "editors": _editors,
    "generators": _generators,
    "kits": _kits,
    "losses": _losses,
    "models": _models,
    "objectives": _objectives,
    "recipes": _recipes,
    "runs": _runs,
    "scorers": _scorers,
    "tasks": _tasks,
    "worlds": _worlds,
}


def _list(**values: Any) -> int:
    """List tasks, recipes, losses, models, runs ...

    WHAT is tasks, recipes, losses, editors, captioners, generators, scorers, kits, models,
    objectives, worlds or runs.
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
    lines, rows = [], []
    for entry in entries:
        first, *others = entry.values()
        told = "  ".join(str(other) for other in others if not isinstance(other, dict) and other)
        lines.append(f"{str(first).ljust(width)}  {told}".rstrip())
        rows.append({k: str(v) for k, v in entry.items() if not isinstance(v, dict)})
    table(rows, lines, prose=("about", "licence"))
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
