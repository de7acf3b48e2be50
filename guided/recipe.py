"""Recipes: what to do, as data.

A recipe is a verb (``task``), the verb's own options under their own names, and a few keys that
every verb knows.  It is read from TOML, strictly: an unknown key is an error that names the
nearest known one.  Everything the command line and the Python functions do is a recipe first.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from guided.core import toml
from guided.errors import RecipeError, nearest
from guided.expect import check as check_expect
from guided.tasks import task_names
from guided.tasks.base import TaskOptions

#: Keys of every recipe beside its task's own, with what they hold.
COMMON: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "about": (str,),
    "seed": (int,),
    "device": (str,),
    "kit": (str,),
    "out": (str,),
    "online": (bool,),
    "expect": (dict,),
}
#: Keys whose texts name files and folders, so that a saved recipe works from anywhere.
PLACES = frozenset(
    {
        "data", "file", "files", "folder", "generator", "identity", "image", "images", "index",
        "inverter", "landmarks", "mask", "metadata", "perceptual", "target",
    }
)  # fmt: skip
_TYPE_NAMES = {str: "text", int: "a whole number", bool: "true or false", dict: "a table"}


# --------------------------------------------------------------------------- verbs


def check_task(name: str) -> str:
    """The verb's name, if there is such a verb.

    Raises:
        RecipeError: there is none; the nearest is named.
    """
    if name not in task_names():
        raise RecipeError(f"There is no task {name!r}.", hint=nearest(name, task_names()))
    return name


def task_module(name: str) -> Any:
    """The module of a verb: it has ``Options`` and ``run(options, bench)``.

    Raises:
        RecipeError: there is no such verb.
    """
    return importlib.import_module(f"guided.tasks.{check_task(name)}")


def task_options(name: str) -> type[TaskOptions]:
    """The options of a verb, a pydantic model.

    Raises:
        RecipeError: there is no such verb.
    """
    options: type[TaskOptions] = task_module(name).Options
    return options


# --------------------------------------------------------------------------- errors


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Pydantic models named anywhere in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _keys_at(options: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys allowed where a validation error says it is."""
    models: list[type[BaseModel]] = [options]
    for part in place:
        fields = [m.model_fields[part] for m in models if str(part) in m.model_fields]  # type: ignore[index]
        if fields:
            models = [model for found in fields for model in _models_in(found.annotation)]
    return sorted({name for model in models for name in model.model_fields})


def _where(place: Sequence[int | str]) -> str:
    """A place as TOML people write it: ``loss 2`` for the second [[loss]], ``a.b`` for a key."""
    text = ""
    for part in place:
        text += f" {part + 1}" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _complaint(error: ValidationError, options: type[BaseModel], data: Mapping[str, Any]) -> str:
    """The first validation error in one readable line."""
    first = error.errors(include_url=False)[0]
    place: tuple[int | str, ...] = tuple(first["loc"])
    if first["type"] == "extra_forbidden":
        table, key = place[:-1], str(place[-1])
        allowed = _keys_at(options, table)
        if not table:
            allowed += list(COMMON)
        inside = f"{_where(table)}: " if table else ""
        return f"{inside}unknown key {key!r}. {nearest(key, allowed)}"
    if first["type"] == "missing":
        return f"the key {_where(place)!r} is missing."
    given = first.get("input")
    shown = "" if isinstance(given, (dict, list)) else f" = {_short(given)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{_where(place) or 'options'}{shown}: {message[:1].lower()}{message[1:].rstrip('.')}."


def _meant(error: ValidationError, options: type[BaseModel]) -> str:
    """What the key is for that the first validation error is about, and what it is by itself."""
    first = error.errors(include_url=False)[0]
    known = options.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    if known is None or not known.description or first["type"] == "extra_forbidden":
        return ""
    own = "" if known.is_required() or known.default in (None, "", []) else (
        f" Left out, it is {_short(known.default)}."
    )  # fmt: skip
    return f"It is: {known.description}.{own}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


# --------------------------------------------------------------------------- the recipe


@dataclass(frozen=True)
class Recipe:
    """A verb with its options: everything that decides what a run does.

    ``options`` are the validated options of ``task``; ``seed`` is the first seed; ``device`` None
    takes the best there is; ``kit`` names the table of models; ``out`` is the folder to write
    into (None: a new folder under outputs/); ``expect`` are conditions of success.
    """

    task: str
    options: TaskOptions
    seed: int = 0
    device: str | None = None
    kit: str = "portraits"
    out: str | None = None
    online: bool = False
    about: str = ""
    expect: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """The recipe that plain data describes; ``source`` names it in errors.

        Raises:
            RecipeError: an unknown key, a wrong type, a missing key, an unknown task.
        """
        common = {key: value for key, value in data.items() if key in COMMON}
        own = {key: value for key, value in data.items() if key not in COMMON}
        for key, value in common.items():
            kinds = COMMON[key]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise RecipeError(
                    f"{source}: {key} = {_short(value)}: must be {_TYPE_NAMES[kinds[0]]}."
                )
        if "task" not in common:
            raise RecipeError(
                f"{source}: the key 'task' is missing.",
                hint=f'Write for example task = "{task_names()[0]}". '
                f"Tasks: {', '.join(task_names())}.",
            )
        if not 0 <= common.get("seed", 0) < 2**62:
            raise RecipeError(f"{source}: seed = {_short(common['seed'])}: must be 0 or more.")
        try:
            options = task_options(common["task"])
        except RecipeError as error:
            raise RecipeError(f"{source}: {error.message}", hint=error.hint) from error
        check_expect(common.get("expect", {}), source)
        return cls(options=_validated(options, own, source), **common)

    @classmethod
    def loads(cls, text: str, source: str = "recipe", overrides: Iterable[str] = ()) -> Recipe:
        """The recipe in TOML text, after ``key=value`` overrides.

        Raises:
            RecipeError: not TOML, too long, nested too deep, or not a recipe.
        """
        return cls.of(toml.overridden(toml.parse(text, source), overrides), source)

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """The recipe in a TOML file, after ``key=value`` overrides.

        Raises:
            RecipeError: no such file, or not a recipe.
        """
        return cls.loads(read_text(path), Path(path).name, overrides)

    def data(self) -> dict[str, Any]:
        """The recipe as plain data: the common keys that say something, then the task's own."""
        common: dict[str, Any] = {"task": self.task}
        if self.about:
            common["about"] = self.about
        common["seed"] = self.seed
        common["kit"] = self.kit
        for key in ("device", "out"):
            if getattr(self, key) is not None:
                common[key] = getattr(self, key)
        if self.online:
            common["online"] = True
        own = _without_none(self.options.model_dump(mode="json", warnings="none"))
        expect = {"expect": dict(self.expect)} if self.expect else {}
        return {**common, **own, **expect}

    def dumps(self) -> str:
        """The recipe as TOML; ``Recipe.loads`` gives an equal recipe back."""
        return toml.dumps(self.data())

    def with_(self, **changes: Any) -> Recipe:
        """The recipe with other common keys (``seed``, ``device``, ``out``, ...)."""
        return replace(self, **changes)

    def located(self, folder: Path, moved: Mapping[str, Path] | None = None) -> Recipe:
        """The recipe with its relative paths made absolute from ``folder``.

        Paths are values of type Path and the texts of the keys in ``PLACES``, where such a file or
        folder is there.  ``moved`` gives other places for some of them.
        """
        places = dict(moved or {})
        return replace(self, options=_located(self.options, folder.absolute(), places))


def _validated(options: type[TaskOptions], own: Mapping[str, Any], source: str) -> TaskOptions:
    """The options from plain data, with types taken strictly ("7" is not a number)."""
    try:
        text = json.dumps(own)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"{source}: {error}.", hint="Allowed: text, numbers, true and false, lists and tables."
        ) from error
    try:
        return options.model_validate_json(text, strict=True)
    except ValidationError as error:
        complaint = _complaint(error, options, own)
        raise RecipeError(f"{source}: {complaint}", hint=_meant(error, options)) from error


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _located(value: Any, folder: Path, moved: Mapping[str, Path], key: str = "") -> Any:
    """The same value with every relative path in it made absolute."""
    if isinstance(value, Path):
        return moved.get(str(value), folder / value.expanduser())
    if isinstance(value, str):
        place = moved.get(value) or (folder / value if key in PLACES and value else None)
        return str(place) if place is not None and (value in moved or place.exists()) else value
    if isinstance(value, BaseModel):
        names = type(value).model_fields
        changed = {name: _located(getattr(value, name), folder, moved, name) for name in names}
        return value.model_copy(update=changed)
    if isinstance(value, (list, tuple)):
        return type(value)(_located(item, folder, moved, key) for item in value)
    if isinstance(value, dict):
        return {name: _located(item, folder, moved, name) for name, item in value.items()}
    return value


# --------------------------------------------------------------------------- text


def read_text(path: str | Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: no such file, not text, or larger than a recipe can be.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(toml.LARGEST + 1)
        if len(raw) > toml.LARGEST:
            raise RecipeError(f"{path}: larger than {toml.LARGEST // 1024} KiB, so not a recipe.")
        return raw.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RecipeError(
            f"Cannot read the recipe {path}: {reason}.", hint="Recipes: guided list recipes."
        ) from error
