"""Verbs as Python functions: ``guided.read("me.png")`` is a recipe run without being saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, get_origin

from PIL import Image
from pydantic.fields import FieldInfo

from guided import studio
from guided.core.run import Result, Run
from guided.errors import UsageError
from guided.recipe import COMMON, Recipe, task_options
from guided.tasks import task_help

_SHARED = ("seed", "device", "kit", "out", "online", "about", "expect")


def _is_argument(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and extra.get("cli") == "argument"


def _takes_many(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (list, tuple)


class _Plain:
    """Turns Python values into recipe values, setting pictures in memory aside under names."""

    def __init__(self) -> None:
        self.given: dict[str, Image.Image] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Image.Image):
            name = f"given-{len(self.given) + 1}.png"
            self.given[name] = value
            return name
        if isinstance(value, PathLike):
            return str(Path(value))
        if isinstance(value, Mapping):
            return {str(key): self(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(item) for item in value]
        if hasattr(value, "terms"):  # an Objective: a list of [[loss]] tables
            return [self._loss(term.loss, term.weight) for term in value.terms]
        if is_dataclass(value) and hasattr(value, "kind"):
            return [self._loss(value, 1.0)]
        return value

    def _loss(self, loss: Any, weight: float) -> dict[str, Any]:
        own = {field.name: self(getattr(loss, field.name)) for field in fields(loss)}
        kept = {name: value for name, value in own.items() if value is not None}
        return {"kind": loss.kind, **kept, "weight": weight}


def _bound(name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """Positional arguments by the names of the verb's argument keys."""
    keys = {n: f for n, f in task_options(name).model_fields.items() if _is_argument(f)}
    data = dict(options)
    left = list(arguments)
    for key, field in keys.items():
        if not left:
            break
        if key in data:
            raise UsageError(f"guided.{name}(): {key!r} is given twice.")
        if _takes_many(field) and not isinstance(left[0], (list, tuple)):
            data[key], left = left, []
        else:
            data[key] = left.pop(0)
    if left:
        taken = ", ".join(keys) or "no arguments by position"
        raise UsageError(f"guided.{name}() got too many arguments; it takes {taken}.")
    for key, field in keys.items():  # one thing where a list is meant is a list of one
        if _takes_many(field) and key in data and not isinstance(data[key], (list, tuple)):
            data[key] = [data[key]]
    return data


def _signature(name: str) -> inspect.Signature:
    """What ``help(guided.<verb>)`` shows: arguments, then options, then what all verbs share."""
    either, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    listed = []
    for key, field in task_options(name).model_fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.get_default()
        kind = either if _is_argument(field) else named
        listed.append(inspect.Parameter(key, kind, default=default, annotation=field.annotation))
    listed += [inspect.Parameter(key, named, default=None) for key in _SHARED]
    order = sorted(listed, key=lambda p: (p.kind, p.default is not inspect.Parameter.empty))
    return inspect.Signature(order, return_annotation=Run[Result])


@cache
def verb(name: str) -> Callable[..., Run[Result]]:
    """The function of a verb: builds its recipe and starts it.

    Raises:
        RecipeError: there is no such verb.
    """

    def start(*arguments: Any, **options: Any) -> Run[Result]:
        plain = _Plain()
        data = plain(_bound(name, arguments, options))
        kept = {key: value for key, value in data.items() if value is not None}
        recipe = Recipe.of({**kept, "task": name}, f"guided.{name}()")
        return studio.run(recipe, save=recipe.out is not None, given=plain.given)

    start.__name__ = start.__qualname__ = name
    start.__module__ = "guided"
    keys = "\n".join(
        f"    {key}: {field.description}" for key, field in task_options(name).model_fields.items()
    )
    start.__doc__ = f"{task_help(name)}\n\n{keys}\n\nReturns a Run; it writes only into ``out``."
    start.__signature__ = _signature(name)  # type: ignore[attr-defined]
    return start


assert set(_SHARED) | {"task"} == set(COMMON)
