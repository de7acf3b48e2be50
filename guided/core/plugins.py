"""Registries of classes by name: files of a folder, entry points, classes of a user's module.

A name is that of a file ("latent_l2"), of an entry point of an installed package, or
"module:Class".  A class that is handed over as an object is known for the rest of the process.
Nothing is imported to list or to check names.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from guided.core.installed import points_of
from guided.errors import CannotDo, RecipeError

#: "module:Class"
CLASS = re.compile(r"[\w.]+:[\w.<>]+")


@dataclass(frozen=True)
class Registry:
    """Classes of one kind: ``what`` they are, the ``package`` of ours and the ``base`` of all.

    ``package`` is "guided.losses", ``base`` "module:Class", ``group`` that of the entry points,
    ``key`` the keyword by which one is handed over in Python.  A file of the package is listed
    where it holds the class of its name; a file's "_" is a name's ``joint``.
    """

    what: str
    package: str
    base: str
    group: str
    key: str
    joint: str = "_"
    handed_over: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(__file__).parents[1] / self.package.partition(".")[2]

    def file(self, name: str) -> Path:
        """The file of a name of this package."""
        return self.folder / f"{name.replace(self.joint, '_')}.py"

    def files(self) -> list[str]:
        """The names of this package's own, sorted."""
        return [each.replace("_", self.joint) for each in _files(self.folder)]

    def points(self) -> dict[str, EntryPoint]:
        """Those of other installed packages; a name of this package's own stays its own."""
        own = self.files()
        points = points_of(self.group)
        return {point.name: point for point in points if point.name not in own}

    def names(self) -> list[str]:
        """The names a recipe can use, sorted; a "module:Class" is known besides."""
        return sorted([*self.files(), *self.points()])

    def is_at_hand(self, name: str) -> bool:
        """Whether a class is known without importing a module that a recipe names."""
        return ":" not in name or name in self.handed_over or name.partition(":")[0] in sys.modules

    def load(self, name: str) -> Any:
        """The class of a name; its module is imported.

        Raises:
            RecipeError: a module or class that is not there.
            CannotDo: what carries the name is of another kind, or lacks a method.
        """
        base = _of_module(self, self.base)
        if name in self.handed_over:
            return self.handed_over[name]
        if ":" in name:
            loaded = _of_module(self, name)
        elif name in self.files():
            module = importlib.import_module(f"{self.package}.{self.file(name).stem}")
            loaded = getattr(module, class_name(self.file(name).stem))
        else:
            loaded = self.points()[name].load()
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise CannotDo(f"The {self.what} {name!r} is {loaded!r}, which is no {base.__name__}.")
        if inspect.isabstract(loaded):
            raise CannotDo(
                f"The {self.what} {name!r} does not say {', '.join(sorted(_lacks(loaded)))}.",
                hint=f"{base.__module__.replace('.', '/')}.py says what a {self.what} must give.",
            )
        return loaded

    def name_of(self, kind: type) -> str:
        """The name by which a recipe finds a class again."""
        module, name = kind.__module__, kind.__qualname__
        if module.startswith(f"{self.package}."):
            return module.rpartition(".")[2].replace("_", self.joint)
        for each, point in self.points().items():
            if (point.module, point.attr) == (module, name):
                return each
        self.handed_over[f"{module}:{name}"] = kind
        return f"{module}:{name}"


def _lacks(kind: type) -> frozenset[str]:
    names: frozenset[str] = getattr(kind, "__abstractmethods__", frozenset())
    return names


def class_name(file: str) -> str:
    """The class in a file.

    >>> class_name("latent_l2")
    'LatentL2'
    """
    return "".join(part[:1].upper() + part[1:] for part in file.split("_"))


@cache
def _files(folder: Path) -> tuple[str, ...]:
    """The modules of a folder that hold the class of their name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(
        name
        for name in names
        if re.search(
            rf"^class {class_name(name)}\b", (folder / f"{name}.py").read_text("utf-8"), re.M
        )
    )


def _of_module(registry: Registry, name: str) -> Any:
    """What a "module:Class" names.

    Raises:
        RecipeError: there is no such module or class.
    """
    module, _, within = name.partition(":")
    try:
        value: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in within.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        own = module == "__main__" or "<locals>" in within
        raise RecipeError(
            f"The {registry.what} {name!r} is not here: {error}.",
            hint="It was defined in a script or notebook; define it there again and hand it over: "
            f"{registry.key}={within.rpartition('.')[2]}(...)."
            if own
            else f"Install the package of {module}, or put its folder on PYTHONPATH.",
        ) from error
    return value
