"""Registry of diffusion families: found by file, by entry point, or registered as objects.

A family of this package is a module here that has a ``FAMILY``; another package's is named by an
entry point of the group ``guided.diffusion_families``; one's own, in a script or notebook, is an
object given to ``register``.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from guided.core.installed import points_of
from guided.errors import CannotDo
from guided.generators.diffusion.base import DENOISERS, Classes, Family

GROUP = "guided.diffusion_families"
_REGISTERED: list[Family[Any]] = []
_LIBRARIES = ("diffusers", "transformers")


def register(family: Family[Any]) -> Family[Any]:
    """Add a family for this process; one of the same name that was registered before goes.

    Raises:
        CannotDo: what is given is no Family.
    """
    _checked(family, "The registered family")
    _REGISTERED[:] = [each for each in _REGISTERED if each.name != family.name] + [family]
    return family


def families() -> list[Family[Any]]:
    """All families: those of this package by name, those of entry points, registered ones.

    Raises:
        CannotDo: an entry point that names no Family.
    """
    modules = sorted(each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]))
    own = (importlib.import_module(f"guided.generators.diffusion.{name}") for name in modules)
    found: list[Family[Any]] = [each.FAMILY for each in own if hasattr(each, "FAMILY")]
    points = sorted(points_of(GROUP), key=lambda each: each.name)
    plugged = (_checked(each.load(), f"The diffusion family {each.name!r}") for each in points)
    return [*found, *plugged, *_REGISTERED]


def _checked(family: object, what: str) -> Family[Any]:
    if not isinstance(family, Family):
        raise CannotDo(
            f"{what} is {str(family)[:80]}, which is no object of a subclass of Family.",
            hint="Name an object, such as FAMILY = MyFamily(); guided/generators/diffusion/base.py "
            "says what a family must give.",
        )
    return family


def allowed_classes(part: str) -> list[str]:
    """The classes ("library.Class") that any family allows for a part."""
    kinds = (kind for family in families() for kind in family.classes.get(part, ()))
    return list(dict.fromkeys(kinds))


def family_of(parts: Classes) -> Family[Any]:
    """The family of a pipeline whose parts have these classes; of two that fit, the later one.

    Raises:
        CannotDo: no denoiser, or two, or parts of no family.
    """
    denoisers = [part for part in DENOISERS if part in parts]
    if len(denoisers) != 1:
        raise CannotDo(
            f"A pipeline needs a unet or a transformer, and not both: it has {denoisers}."
        )
    fitting = [family for family in families() if family.fits(parts)]
    if not fitting:
        named = ", ".join(f"{part} ({kinds[0]})" for part, kinds in sorted(parts.items()))
        known = "; ".join(f"{each.name} ({', '.join(each.classes)})" for each in families())
        raise CannotDo(
            f"These parts are of no known family of diffusion models: {named}.",
            hint=f"Known families and their parts: {known}.",
        )
    return fitting[-1]


def class_names(part: object) -> list[str]:
    """The names ("library.Class") of an object's class and of that class's bases."""
    names = []
    for kind in type(part).__mro__:
        root = kind.__module__.partition(".")[0]
        names.append(f"{root if root in _LIBRARIES else kind.__module__}.{kind.__name__}")
    return names
