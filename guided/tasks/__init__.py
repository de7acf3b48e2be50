"""The verbs, one a file; their names and helps are known without importing them.

Verbs of the toolkit are the files of this folder, those of a world the files of its folder
``tasks``, and those of another installed package entry points of the group ``guided.tasks``, each
naming a module with ``Options`` and ``run(options, ctx)``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from guided.core.installed import points_of
from guided.core.world import world_folders

GROUP = "guided.tasks"


@cache
def _own_modules() -> dict[str, str]:
    places = {Path(folder): "guided.tasks" for folder in __path__}
    places |= {w / "tasks": f"guided.worlds.{w.name}.tasks" for w in world_folders()}
    return {
        module.name: f"{package}.{module.name}"
        for folder, package in places.items()
        for module in pkgutil.iter_modules([str(folder)])
        if module.name != "base" and not module.name.startswith("_")
    }


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in points_of(GROUP)}


def task_modules() -> dict[str, str]:
    """Every verb with the dotted name of its module; a name of this package's stays its own."""
    plugged = {name: point.module for name, point in _points().items()}
    return {**plugged, **_own_modules()}


def load_task(name: str) -> Any:
    """The module of a verb there is."""
    if name in _own_modules():
        module = _own_modules()[name].removeprefix("guided.")
        return importlib.import_module(f"guided.{module}")
    return _points()[name].load()


def task_names() -> tuple[str, ...]:
    """The verbs there are, sorted."""
    return tuple(sorted(task_modules()))


def task_help(name: str) -> str:
    """The first line of a verb's docstring, read from its file; empty for an unknown verb."""
    file = _file_of(task_modules().get(name, ""))
    text = file.read_text("utf-8") if file else ""
    head = re.match(r'\s*[rR]?"""(.+?)(?:\n|""")', text)
    return head[1].strip() if head else ""


def _file_of(module: str) -> Path | None:
    """The file of a module; those of this package are found without importing their parents."""
    if module.startswith("guided."):
        return Path(__file__).parents[1].joinpath(*module.split(".")[1:]).with_suffix(".py")
    spec = importlib.util.find_spec(module) if module else None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
