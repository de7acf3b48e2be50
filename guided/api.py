"""Verbs as Python functions: ``guided.read("me.png")`` is a recipe run without being saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, get_args, get_origin

from PIL import Image
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from guided import studio
from guided.core.image_arrays import image_in_memory, is_array
from guided.core.images import WHITE
from guided.core.loss_tables import table_of
from guided.core.precision import dtype_name
from guided.core.run import Result, Run
from guided.errors import UsageError
from guided.models.references import OBJECT
from guided.recipe import COMMON, KINDS, Recipe, models_in, task_options
from guided.tasks import task_help

_SHARED = ("seed", "device", "dtype", "offload", "kit", "out", "force", "online", "about", "expect")


#: The options that name a model, so that they take an object too.
MODELS = frozenset(key for key, kind in KINDS.items() if kind == "model")
_BLACK = (0, 0, 0)
#: The options that name pictures, so that they take pictures in memory too.
IMAGES = frozenset(("guide_image", "image", "images", "mask", "minus", "plus", "query", "to"))


def _is_plain(value: Any) -> bool:
    """Whether an option has a plain value: of some verbs ``prior`` is a number."""
    return value is None or isinstance(value, (str, PathLike, int, float, Mapping))


def _is_argument(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and extra.get("cli") == "argument"


def _takes_many(annotation: Any) -> bool:
    if get_origin(annotation) in (list, tuple):
        return True
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return len(parts) == 1 and _takes_many(parts[0])


def _is_many(value: Any) -> bool:
    """Whether a value is several: a list, a tuple or what ``Path.glob`` gives; no open file."""
    several = isinstance(value, (list, tuple, Iterator))
    return several and not hasattr(value, "read")


def _listed(options: type[BaseModel], data: Mapping[str, Any]) -> dict[str, Any]:
    """Options in which one thing where a list is meant is a list of one, in tables too."""
    listed = dict(data)
    for key, field in options.model_fields.items():
        value = listed.get(key)
        if value is None or (is_array(value) and key not in IMAGES):
            continue
        if _takes_many(field.annotation):
            listed[key] = list(value) if _is_many(value) else [value]
        elif isinstance(value, Mapping):
            for table in models_in(field.annotation):
                listed[key] = _listed(table, value)
    return listed


class _Plain:
    """Turns Python values into recipe values, setting images and models in memory aside."""

    def __init__(self) -> None:
        self.given: dict[str, Image.Image] = {}
        self.objects: dict[str, Any] = {}

    def options(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a verb's options; where a model is meant, an object gets a name."""
        return {
            key: self._model(value) if key in MODELS and not _is_plain(value) else self(value, key)
            for key, value in data.items()
        }

    def _model(self, value: Any) -> str:
        model = value[0] if isinstance(value, (list, tuple)) and value else value
        kind = f"{OBJECT}{type(model).__name__}"
        name, number = kind, 1
        while name in self.objects and self.objects[name] is not value:
            number += 1
            name = f"{kind}-{number}"
        self.objects[name] = value
        return name

    def __call__(self, value: Any, key: str = "") -> Any:
        """The plain value of an option, a picture in it by a name that stands for it."""
        if key in IMAGES:
            mask = key == "mask"
            image = image_in_memory(value, background=_BLACK if mask else WHITE, mask=mask)
            if image is not None:
                name = f"given-{len(self.given) + 1}.png"
                self.given[name] = image
                return name
        if isinstance(value, (Image.Image, bytes, bytearray)):
            raise UsageError(
                f"{key or 'a value'} was given a {_kind(value)}, which it cannot be.",
                hint=f"Pictures go to: {', '.join(sorted(IMAGES))}.",
            )
        if hasattr(value, "__array__") and hasattr(value, "tolist"):
            return value.tolist()  # also a number of numpy's or torch's own
        if isinstance(value, PathLike):
            return str(Path(value))
        if isinstance(value, Mapping):
            return {str(name): self(item, str(name)) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain for item in value for plain in _tables(item) or [self(item, key)]]
        return _tables(value) or value


def _kind(value: Any) -> str:
    return "picture" if isinstance(value, Image.Image) else type(value).__name__


def _tables(value: Any) -> list[dict[str, Any]]:
    """The [[loss]] tables of a loss or a sum of losses; none for anything else."""
    if hasattr(value, "terms"):
        return [table_of(term.loss, term.weight) for term in value.terms]
    if hasattr(value, "bind") and not isinstance(value, type):
        return [table_of(value)]
    return []


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
        if _takes_many(field.annotation) and not _is_many(left[0]):
            data[key], left = left, []
        else:
            data[key] = left.pop(0)
    if left:
        taken = ", ".join(keys) or "no arguments by position"
        raise UsageError(f"guided.{name}() got too many arguments; it takes {taken}.")
    return _listed(task_options(name), data)


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
        data = plain.options(_bound(name, arguments, options))
        named = {key: value for key, value in data.items() if value is not None}
        if "dtype" in named:
            named["dtype"] = dtype_name(named["dtype"])
        recipe = Recipe.of({**named, "task": name}, f"guided.{name}()")
        return studio.run(
            recipe, save=recipe.out is not None, given=plain.given, objects=plain.objects
        )

    start.__name__ = start.__qualname__ = name
    start.__module__ = "guided"
    keys = "\n".join(
        f"    {key}: {field.description}" for key, field in task_options(name).model_fields.items()
    )
    start.__doc__ = f"{task_help(name)}\n\n{keys}\n\nReturns a Run; it writes only into ``out``."
    start.__signature__ = _signature(name)  # type: ignore[attr-defined]
    return start


assert set(_SHARED) | {"task"} == set(COMMON)
