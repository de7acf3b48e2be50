"""Training objectives by name: files of this package, of the worlds and of other packages.

A file of ``guided/training/objectives`` learns from any folder of captioned images; a file of the
same name in a world's folder ``training`` is its form for that world, which is taken where no
folder is given.  Another installed package adds objectives as entry points ``guided.objectives``:
a name, and "module:Class".  Nothing is imported to list or to check names.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from guided.core.installed import points_of
from guided.core.world import world_folders
from guided.errors import CannotDo, RecipeError, nearest

if TYPE_CHECKING:
    from guided.training.objective import TrainingContext, TrainingObjective

GROUP = "guided.objectives"
#: Names of earlier releases, which recipes may go on using.
ALIASES = {"contrastive": "clip", "vae": "autoencoder"}
_OWN = "training.objectives"


def find(name: str, table: Mapping[str, Any], ctx: TrainingContext) -> TrainingObjective[Any]:
    """The objective of that name with its table of settings; see ``objectives``.

    Raises:
        RecipeError: no such objective, or keys that do not fit it.
        CannotDo: what carries the name is no objective, or it does not take the data given.
    """
    kind = objective_class(name, folder=ctx.data is not None)
    return kind(validated(kind.Settings, table, f"[settings] of {name}"), ctx)


def objective_class(name: str, *, folder: bool) -> type[TrainingObjective[Any]]:
    """The class of that name, for a ``folder`` of the user's or for a world's own data.

    Raises:
        RecipeError: no such objective.
        CannotDo: what carries the name is no objective.
    """
    from guided.training.objective import TrainingObjective

    name = ALIASES.get(name, name)
    known, points = objectives(), objective_points()
    if name in points:
        kind = points[name].load()
        if not (isinstance(kind, type) and issubclass(kind, TrainingObjective)):
            raise CannotDo(f"The objective {name!r} is {kind!r}, which is no Objective.")
        return kind
    modules = known.get(name, (f"{_OWN}.{name}",))
    place = modules[0] if folder else modules[-1]
    try:
        module = importlib.import_module(f"guided.{place}")
    except ModuleNotFoundError as error:
        if error.name != f"guided.{place}":
            raise
        module = None
    kinds = [
        value
        for value in (vars(module).values() if module else ())
        if isinstance(value, type)
        and issubclass(value, TrainingObjective)
        and getattr(value, "name", None) == name
    ]
    if kinds:
        return kinds[-1]  # after the one that it may extend
    names = [*known, *points, *ALIASES]
    raise RecipeError(f"There is no objective {name!r}.", hint=nearest(name, names))


def world_keys(name: str) -> frozenset[str]:
    """The settings of an objective that it has for a world's own data alone, old spellings too.

    Raises:
        RecipeError: no such objective.
        CannotDo: what carries the name is no objective.
    """
    from guided.training.objective import RENAMED

    forms = [objective_class(name, folder=folder).Settings for folder in (False, True)]
    world, folder = (frozenset(form.model_fields) for form in forms)
    own = world - folder
    return own | {old for old, new in RENAMED.items() if new in own and old not in folder}


def objectives() -> dict[str, tuple[str, ...]]:
    """The names of this package's objectives with their modules: that for folders first, then
    those of worlds; found without importing, by a class of the file's name.
    """
    places = {Path(__file__).parent / "objectives": _OWN}
    places |= {w / "training": f"worlds.{w.name}.training" for w in world_folders()}
    known: dict[str, tuple[str, ...]] = {}
    for folder, package in places.items():
        for file in sorted(folder.glob("*.py")):
            if f'\n    name = "{file.stem}"\n' in file.read_text("utf-8"):
                known[file.stem] = (*known.get(file.stem, ()), f"{package}.{file.stem}")
    return known


def objective_points() -> dict[str, EntryPoint]:
    """The objectives of other installed packages; a name of this package's own stays its own."""
    own = objectives()
    return {point.name: point for point in points_of(GROUP) if point.name not in own}


def validated(model: Any, table: Mapping[str, Any], where: str) -> Any:
    """A table as the settings of a pydantic model.

    Raises:
        RecipeError: the first key that does not fit, with the nearest known one.
    """
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = nearest(key, model.model_fields) if first["type"] == "extra_forbidden" else ""
        raise RecipeError(f"{where}: {key or 'keys'}: {first['msg']}.", hint=hint) from error
