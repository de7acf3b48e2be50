"""Steer any image or text generator with any CLIP.

One sentence: find the latent (or the context, or the noise path) whose output minimises a weighted
sum of losses scored by CLIP.  One guidance loop serves captioning, editing and generation::

    import guided as g

    faces = g.portraits(count=4, seed=7).result().images
    for step in g.portraits(count=4):   # every verb is a Run: iterate its Steps ...
        print(step.index, step.total)   # ... or ask for its .result()

Every verb (``g.portraits``, ``g.read``, ...) takes its options by name, its arguments also by
position, and ``seed``, ``device``, ``kit``, ``out`` and ``online``.  Nothing is written unless
``out`` names a folder.  The same verbs are commands (``guided portraits --help``) and recipes
(``guided run recipe.toml``): what a verb does is a Recipe before it is anything else.

How the package is built: floors, whose imports point down only.

    cli, web          thin faces: parse, show, nothing else
    studio            plan, run, save, again, history (keeping: the run folder)
    recipe            TOML <-> options, strict (expect: conditions of success)
    tasks             one verb a file: its options are its recipe's keys
    judging           readers and metrics that nothing below may import: a judge is never optimised
    training          one fit loop, one objective a file
    scorers generators language losses guidance index
                      adapters of models, one loss a file, the loops, the vector store
    nets portraits zoo
                      plain modules; the drawn world; names of models -> files, cards, kits
    core, errors      shapes, seeds, device, images, steps and results, protocols, files, lineage

The nouns: a *Scorer* embeds pictures and texts into one space; a *Generator* renders a *Latent*; a
*Loss* looks at a *Draft* and gives one number a row; losses add up to an *Objective*; a loop is a
generator of *Steps* that ends with a *Result*; a *Recipe* is a verb with its options; a *Kit* names
a model for every role.  The file system is the registry: ``kind = "identity"`` in a recipe is
``guided/losses/identity.py``, the verb ``read`` is ``guided/tasks/read.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HERE = Path(__file__).parent
_EXPORTS = {
    "CannotDo": "errors",
    "CorruptWeights": "errors",
    "GuidedError": "errors",
    "ImageError": "errors",
    "MissingWeights": "errors",
    "Objective": "core.objective",
    "OutputError": "errors",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "Result": "core.run",
    "Run": "core.run",
    "Seeds": "core.seeds",
    "ShapeError": "errors",
    "Step": "core.run",
    "StoreError": "errors",
    "UnsafeWeights": "errors",
    "UsageError": "errors",
    "again": "studio",
    "history": "studio",
    "open_image": "core.images",
    "plan": "studio",
    "run": "studio",
    "show": "studio",
}


def _files_of(folder: str) -> list[str]:
    names = (module.name for module in pkgutil.iter_modules([str(_HERE / folder)]))
    return [name for name in names if not name.startswith("_") and name != "base"]


def _class_name(kind: str) -> str:
    """The class of a loss's file: ``latent_l2`` holds ``LatentL2``."""
    return "".join(part[:1].upper() + part[1:] for part in kind.split("_"))


_VERBS = frozenset(_files_of("tasks"))
_LOSSES = {_class_name(kind): f"losses.{kind}" for kind in _files_of("losses")}

__all__ = sorted({*_EXPORTS, *_LOSSES, *_VERBS})  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return importlib.import_module("guided.verbs").verb(name)
    home = _EXPORTS.get(name) or _LOSSES.get(name)
    if home is None:
        raise AttributeError(f"module 'guided' has no attribute {name!r}")
    return getattr(importlib.import_module(f"guided.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _VerbPackage(ModuleType):
    """A package that shares its name with a verb (``portraits``, ``index``) and can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return importlib.import_module("guided.verbs").verb(name)(*arguments, **options)


class _Guided(ModuleType):
    """This package: subpackages that take the name of a verb become callable as that verb."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _VERBS:
            value.__class__ = _VerbPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Guided
