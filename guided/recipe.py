"""Recipes: what to do, as data.

A recipe is a verb (``task``), the verb's own options under their own names, and a few keys that
every verb knows.  It is read from TOML, strictly: an unknown key is an error that names the
nearest known one.  Everything the command line and the Python functions do is a recipe first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from guided.core import precision, toml
from guided.core.files import IMAGE_SUFFIXES
from guided.core.finite import not_finite
from guided.core.precision import DtypeName
from guided.core.seeds import read_seed, written_seed
from guided.core.text import absolute, encodable, restored, stored, there
from guided.errors import RecipeError, nearest
from guided.expectations import check as check_expect
from guided.tasks import load_task, task_names
from guided.tasks.base import TaskOptions
from guided.zoo.recipes import find_recipe, read_text, with_shipped_files

#: Keys of every recipe beside its task's own, with what they hold.
COMMON: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "about": (str,),
    "seed": (int, str),
    "device": (str,),
    "dtype": (str,),
    "offload": (str,),
    "kit": (str,),
    "out": (str,),
    "force": (bool,),
    "online": (bool,),
    "expect": (dict,),
}
#: What a text of a recipe is: the name of a file or folder that is read, of one that is written,
#: of a model, a text that is a file where there is one of that name, or just text.
Kind = Literal["read", "write", "model", "either", "text"]
#: The kind of every key that holds texts, in options, losses and training settings alike.  Saved
#: recipes get absolute paths by it, and a recipe that came in a picture is judged by it; a key
#: that is missing here counts as a path.
KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        ("classes", "data", "file", "files", "folder", "guide_image", "image", "images", "mask",
         "metadata", "recipe", "start", "target", "to"), "read",
    ),
    **dict.fromkeys(("cache", "index", "pools", "sheets", "work"), "write"),
    **dict.fromkeys(
        ("delta", "denoiser", "gan", "generator", "identity", "inverter", "language", "mapper",
         "perceptual", "prior", "reader", "scorer", "statistics", "tokenizer", "vae"), "model",
    ),
    **dict.fromkeys(("landmarks", "minus", "plus", "query"), "either"),
    **dict.fromkeys(
        ("encoding", "guide", "kind", "label", "method", "name", "negative", "neutral", "objective",
         "prompt", "prompts", "reweight", "scheduler", "source", "template", "templates", "text",
         "toward", "where"), "text",
    ),
}  # fmt: skip
#: How the files of models end.
WEIGHTS = (".pt", ".pth", ".ckpt", ".pkl", ".safetensors", ".bin", ".npy")
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
    """The module of a verb: it has ``Options`` and ``run(options, ctx)``.

    Raises:
        RecipeError: there is no such verb.
    """
    return load_task(check_task(name))


def task_options(name: str) -> type[TaskOptions]:
    """The options of a verb, a pydantic model.

    Raises:
        RecipeError: there is no such verb.
    """
    options: type[TaskOptions] = task_module(name).Options
    return options


# --------------------------------------------------------------------------- errors


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Pydantic models named anywhere in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def _keys_at(options: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys allowed where a validation error says it is."""
    models: list[type[BaseModel]] = [options]
    for part in place:
        fields = [m.model_fields[part] for m in models if str(part) in m.model_fields]  # type: ignore[index]
        if fields:
            models = [model for found in fields for model in models_in(found.annotation)]
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
    if first["type"] == "extra_forbidden" or (place and place[0] not in options.model_fields):
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
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    message += "" if message.endswith("?") else "."
    return f"{_where(place) or 'options'}{shown}: {message[:1].lower()}{message[1:]}"


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
    takes the best there is; ``dtype`` and ``offload`` None are "auto" and "none"; ``kit`` names the
    table of models; ``out`` is the folder to write into (None: a new folder under outputs/), and
    with ``force`` files that are there are replaced;
    ``expect`` are conditions of success.
    """

    task: str
    options: TaskOptions
    seed: int = 0
    device: str | None = None
    dtype: DtypeName | None = None
    offload: str | None = None
    kit: str = "portraits"
    out: str | None = None
    online: bool = False
    force: bool = False
    about: str = ""
    expect: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """The recipe that plain data describes; ``source`` names it in errors.

        Raises:
            RecipeError: an unknown key, a wrong type, a missing key, an unknown task.
        """
        options = _task_of(data, source)
        data = options.expanded(data)
        if wrong := not_finite(data):
            raise RecipeError(f"{source}: {wrong}: must be a finite number.")
        common = {key: value for key, value in data.items() if key in COMMON}
        own = {key: value for key, value in data.items() if key not in COMMON}
        common["seed"] = read_seed(common.get("seed", 0), f"{source}: seed")
        for key, value in common.items():
            kinds = COMMON[key]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise RecipeError(
                    f"{source}: {key} = {_short(value)}: must be {_TYPE_NAMES[kinds[0]]}."
                )
        check_expect(common.get("expect", {}), source)
        common = precision.checked(common, source)
        return cls(options=_validated(options, own, source), **common)

    @classmethod
    def loads(cls, text: str, source: str = "recipe", overrides: Iterable[str] = ()) -> Recipe:
        """The recipe in TOML text, after ``key=value`` overrides.

        Raises:
            RecipeError: not TOML, too long, nested too deep, or not a recipe.
        """
        return cls.of(toml.overridden(toml.parse(text, source), overrides), source)

    @classmethod
    def load(
        cls,
        given: str | Path,
        overrides: Iterable[str] = (),
        common: Mapping[str, Any] | None = None,
    ) -> Recipe:
        """The recipe in a TOML file, after ``key=value`` overrides and other ``common`` keys.

        ``given`` is a path, or the name of a recipe as ``guided list recipes`` prints it.

        Raises:
            RecipeError: no such file, or not a recipe.
            UsageError: neither a file nor the name of a recipe.
        """
        path = find_recipe(given)
        table = with_shipped_files(toml.parse(read_text(path), path.name), path)
        return cls.of({**toml.overridden(table, overrides), **(common or {})}, path.name)

    def data(self) -> dict[str, Any]:
        """The recipe as plain data: the common keys that say something, then the task's own."""
        common: dict[str, Any] = {"task": self.task}
        if self.about:
            common["about"] = self.about
        common["seed"] = written_seed(self.seed)
        common["kit"] = self.kit
        for key in ("device", "dtype", "offload", "out"):
            if getattr(self, key) is not None:
                common[key] = getattr(self, key)
        common |= {key: True for key in ("force", "online") if getattr(self, key)}
        own = _without_none(self.options.model_dump(mode="json", warnings="none"))
        expect = {"expect": dict(self.expect)} if self.expect else {}
        return {**common, **own, **expect}

    def dumps(self) -> str:
        """The recipe as TOML; ``Recipe.loads`` gives an equal recipe back."""
        return toml.dumps(self.data())

    def with_(self, **changes: Any) -> Recipe:
        """The recipe with other common keys (``seed``, ``device``, ``out``, ...)."""
        return replace(self, **precision.checked(changes, "recipe", keep=True))

    def located(self, folder: Path, moved: Mapping[str, Path] | None = None) -> Recipe:
        """The recipe with its relative paths made absolute from ``folder``.

        Paths are values of type Path, texts of the kind "write" (not a default), and texts of the
        other kinds where they name a file that is there.  ``moved`` gives other places for some.
        """
        places = dict(moved or {})
        return replace(self, options=_located(self.options, folder.absolute(), places))

    def mentions(self) -> list[tuple[str, Kind, str]]:
        """Every text of the options as (key, kind, text), lists and tables opened; empty ones,
        and keys with a closed set of values, are left out.
        """
        return list(_mentions(self.options, ""))


def _mentions(value: Any, key: str) -> Iterator[tuple[str, Kind, str]]:
    if isinstance(value, (str, Path)):
        if str(value):
            yield key, KINDS.get(key, "read"), str(value)
    elif isinstance(value, BaseModel):
        fields = {n: f for n, f in type(value).model_fields.items() if not is_choice(f.annotation)}
        for name in (*fields, *(value.model_extra or {})):
            yield from _mentions(getattr(value, name), name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _mentions(item, str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _mentions(item, key)


def is_choice(annotation: Any) -> bool:
    """Whether a type allows no texts but those it lists."""
    if get_origin(annotation) is Literal:
        return True
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return bool(parts) and all(part in (int, float, bool) or is_choice(part) for part in parts)


def _task_of(data: Mapping[str, Any], source: str) -> type[TaskOptions]:
    """The options of the verb that plain data names."""
    if "task" not in data:
        raise RecipeError(
            f"{source}: the key 'task' is missing.",
            hint=f'Write for example task = "{task_names()[0]}". Tasks: {", ".join(task_names())}.',
        )
    if not isinstance(data["task"], str):
        raise RecipeError(f"{source}: task = {_short(data['task'])}: must be text.")
    try:
        return task_options(data["task"])
    except RecipeError as error:
        raise RecipeError(f"{source}: {error.message}", hint=error.hint) from error


def _validated(options: type[TaskOptions], own: Mapping[str, Any], source: str) -> TaskOptions:
    """The options from plain data, with types taken strictly ("7" is not a number)."""
    try:
        text = json.dumps(own, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"{source}: {error}.", hint="Allowed: text, numbers, true and false, lists and tables."
        ) from error
    try:
        given = options.model_validate_json(encodable(stored(text)), strict=True)
        return given if stored(text) == text else _named_again(given)
    except ValidationError as error:
        complaint = _complaint(error, options, own)
        raise RecipeError(f"{source}: {complaint}", hint=_meant(error, options)) from error


def _named_again(value: Any) -> Any:
    """The same value with the file names in it as the system has them, not as they are stored."""
    if isinstance(value, str):
        return restored(value)
    if isinstance(value, Path):
        return Path(restored(str(value)))
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return value.model_copy(update={key: _named_again(getattr(value, key)) for key in fields})
    if isinstance(value, (list, tuple)):
        return type(value)(_named_again(item) for item in value)
    if isinstance(value, dict):
        return {key: _named_again(item) for key, item in value.items()}
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _located(value: Any, folder: Path, moved: Mapping[str, Path], key: str = "") -> Any:
    """The same value with every relative path in it made absolute."""
    if isinstance(value, Path):
        return moved.get(str(value)) or absolute(value, folder)
    if isinstance(value, str):
        place = moved.get(value) or _place(value, folder, key)
        return str(place) if place is not None else value
    if isinstance(value, BaseModel):
        given = {
            **{n: getattr(value, n) for n in type(value).model_fields},
            **(value.model_extra or {}),
        }
        own = {n: f.default for n, f in type(value).model_fields.items() if f.annotation is str}
        changed = {n: _located(v, folder, moved, n) for n, v in given.items() if v != own.get(n)}
        return value.model_copy(update=changed)
    if isinstance(value, (list, tuple)):
        return type(value)(_located(item, folder, moved, key) for item in value)
    if isinstance(value, dict):
        return {name: _located(item, folder, moved, name) for name, item in value.items()}
    return value


def _place(text: str, folder: Path, key: str) -> Path | None:
    """The absolute path that a text names, if it names one: what is written always does."""
    kind, path = KINDS.get(key, "model"), absolute(text, folder)
    endings = {"model": WEIGHTS, "either": (*IMAGE_SUFFIXES, ".json")}.get(kind)
    if not text or kind == "text" or (endings and path.suffix.lower() not in endings):
        return None
    return path if kind == "write" or there(path) else None
