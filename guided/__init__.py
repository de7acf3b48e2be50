"""Steer any image or text generator with any CLIP.

One sentence: find the latent (or the context, or the noise path) whose output minimises a weighted
sum of losses scored by CLIP.  One guidance loop serves captioning, editing and generation::

    import guided as g

    faces = g.portraits(count=4, seed=7).result().images
    for step in g.portraits(count=4):   # every verb is a Run: iterate its Steps ...
        print(step.index, step.total)   # ... or ask for its .result()

Every verb (``g.portraits``, ``g.read``, ...) takes its options by name, its arguments also by
position, and ``seed``, ``device``, ``dtype``, ``offload``, ``kit``, ``out``, ``force`` and
``online``.  Nothing is written
unless ``out`` names a folder, and nothing is replaced in it but with ``force``.  The same verbs are
commands (``guided portraits --help``) and recipes (``guided run recipe.toml``): what a verb does is
a Recipe before it is anything else.

How the package is built: floors, whose imports point down only.

    cli               thin faces: parse, show, nothing else
    studio            plan, run, rerun, history (run_folder: what is saved; signing: whose it is)
    recipe            TOML <-> options, strict (expect: conditions of success)
    tasks             one verb a file: its options are its recipe's keys
    judging           metrics that nothing below may import: a judge is never optimised
    training          one fit loop; objectives/: what any folder trains, one objective a file
    editing           one editing method a file: start(images) -> state, render(state, prompts, s)
    captioning        one captioner a file: what proposes the next word
    models            a role, a name, a file or an object -> a loaded model; what is missing
    scorers generators language losses guidance retrieval
                      adapters of models, one loss a file, the loops, the vector store
    nets zoo          plain modules; names of models -> files, cards, kits
    core, errors      shapes, seeds, device, images, steps and results, protocols, files, lineage

Beside these floors stand the worlds (``guided/worlds/portraits``: drawing, grammar, trainings,
judges and verbs of the drawn portraits).  Nothing imports a world: a kit names it, and
``guided.core.world.load_world`` loads it by that name.

The nouns: a *Scorer* embeds pictures and texts into one space; a *Generator* renders a *Latent*; a
*Loss* looks at a *Candidate* and gives one number a row; losses add up to an *Objective*; a loop is
a generator of *Steps* that ends with a *Result*; a *Recipe* is a verb with its options; a *Kit*
names a model for every role.  The file system is the registry: ``kind = "identity"`` in a recipe is
``guided/losses/identity.py``, the verb ``score`` is ``guided/tasks/score.py``, the method ``p2p``
of ``edit`` is ``guided/editing/p2p.py`` and its options stand in the table ``[p2p]``.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from guided.core.loss_registry import LOSSES
from guided.core.plugins import class_name
from guided.tasks import task_names

__version__ = "0.2.0.dev0"

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
    "history": "studio",
    "open_image": "core.images",
    "plan": "studio",
    "rerun": "studio",
    "run": "studio",
    "show": "studio",
}


#: Names in 0.1.
_FORMER = {"Turned": "ClipDelta", "again": "rerun"}
_VERBS = frozenset(task_names())
_LOSSES = {class_name(kind): f"losses.{kind}" for kind in LOSSES.files()}

__all__ = sorted({*_EXPORTS, *_LOSSES, *_VERBS})  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _VERBS or name in task_names():  # the latter: of a package installed since
        return importlib.import_module("guided.api").verb(name)
    if name in _FORMER:
        new = _FORMER[name]
        message = f"guided.{name} is now guided.{new}."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        name = new
    home = _EXPORTS.get(name) or _LOSSES.get(name)
    if home is None:
        raise AttributeError(f"module 'guided' has no attribute {name!r}")
    return getattr(importlib.import_module(f"guided.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
