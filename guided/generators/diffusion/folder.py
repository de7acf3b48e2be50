"""What a folder in the format of diffusers must hold, checked before anything is loaded.

A model_index.json names a class for every component and can name any class of any library; here
only those that the model's family allows are let through, and of weight files only safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guided.core.reading import LARGEST_VOCABULARY, MOST_WORDS, read_json
from guided.errors import (
    CannotDo,
    CorruptWeights,
    MissingWeights,
    UnsafeWeights,
    library_message,
)
from guided.generators.diffusion.base import DENOISERS, Family
from guided.generators.diffusion.families import allowed_classes, families, family_of
from guided.zoo.gate import inspect

INDEX = "model_index.json"
COPY = "Copy the whole folder again: every component has its own subfolder."
_SCHEDULERS = ("scheduler", "prior_scheduler")
_LARGEST = 1 << 20
_VARIANT = re.compile(r"[\w-]+\.([A-Za-z]\w*)(?:-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True)
class FolderIndex:
    """A folder's model_index.json, checked: the family, and its parts' (library, class) by name.

    ``pipeline_class`` is the name of the class of the pipeline that wrote it, ``variant`` that of
    weights which are there in one form alone, such as fp16.
    """

    family: Family[Any]
    parts: dict[str, tuple[str, str]]
    pipeline_class: str
    variant: str | None = None


def read_index(folder: Path) -> FolderIndex:
    """The components that the folder's index names, and the family they belong to.

    Components that the family does not use (a safety checker ...) are left out.

    Raises:
        MissingWeights: no such folder, no index, or a component without its files; it is named.
        CorruptWeights: an index that cannot be read.
        UnsafeWeights: a component whose class is not a known one, or weights only as a pickle.
        CannotDo: no denoiser, or two, or components of no known family.
    """
    named, pipeline_class = _index(folder)
    for part in ("vae", "scheduler"):
        if part not in named:
            raise MissingWeights(f"{folder / INDEX} names no {part!r}.", hint=COPY)
    denoisers = [part for part in DENOISERS if part in named]
    if len(denoisers) != 1:
        raise CannotDo(f"{folder / INDEX} must name a unet or a transformer, not {denoisers}.")
    _check_class(folder, denoisers[0], named, allowed_classes(denoisers[0]))
    family = family_of({part: [_dotted(pair)] for part, pair in named.items()})
    parts = {part: named[part] for part in named if part in (*family.classes, *_SCHEDULERS)}
    for part in parts:
        _check_class(folder, part, named, family.classes.get(part, ()))
        _check_files(folder, part)
    inspect(folder, parts)
    return FolderIndex(family, parts, pipeline_class, _variant(folder, parts))


def _variant(folder: Path, parts: dict[str, tuple[str, str]]) -> str | None:
    """The variant (fp16 ...) that a part has alone; None where every part has its plain weights."""
    for part in parts:
        files = [path.name for path in (folder / part).glob("[!.]*.safetensors")]
        kinds = {each[1] for name in files if (each := _VARIANT.fullmatch(name))}
        plain = any(_VARIANT.fullmatch(name) is None for name in files)
        if kinds and not plain:
            return min(kinds)
    return None


def _dotted(pair: tuple[str, str]) -> str:
    return ".".join(pair)


def _index(folder: Path) -> tuple[dict[str, tuple[str, str]], str]:
    """The (library, class) of every component, and the class of the pipeline."""
    path = folder / INDEX
    if not path.is_file():
        raise MissingWeights(f"{folder} has no {INDEX}.", hint="Name a folder of diffusers' form.")
    known = {*_SCHEDULERS, *(part for family in families() for part in family.classes)}
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("larger than an index can be")
        table: Any = read_json(path, _LARGEST)
        named = {part: value for part, value in table.items() if part in known}
    except (OSError, ValueError, AttributeError) as error:
        reason = library_message(error)
        raise CorruptWeights(f"{path} cannot be read: {reason}.", hint=COPY) from error
    for part, value in named.items():
        pair = isinstance(value, list) and len(value) == 2
        if not pair or not all(isinstance(each, str | None) for each in value):
            raise CorruptWeights(
                f"{path} has {part} = {str(value)[:80]}, not a library and a class.", hint=COPY
            )
    parts = {part: (value[0], str(value[1])) for part, value in named.items() if value[0]}
    return parts, str(table.get("_class_name", ""))


def _check_class(
    folder: Path, part: str, named: dict[str, tuple[str, str]], allowed: Sequence[str]
) -> None:
    library, kind = named[part]
    if part in _SCHEDULERS:  # any of diffusers' own; the loop says which it can drive
        fits = library == "diffusers" and kind.isidentifier() and kind.endswith("Scheduler")
    else:
        fits = _dotted(named[part]) in allowed
    if not fits:
        names = ", ".join(each.rpartition(".")[2] for each in allowed)
        raise UnsafeWeights(
            f"{folder / INDEX} wants {library}.{kind} as {part!r}; allowed: "
            f"{names or 'a scheduler of diffusers'}."
        )


def _check_files(folder: Path, part: str) -> None:
    place = folder / part
    files = list(place.iterdir()) if place.is_dir() else []
    names = {path.name for path in files if not path.name.startswith("._")}
    if not names:
        raise MissingWeights(f"{folder} lacks its component {part!r}: {place}.", hint=COPY)
    _check_readable(part, place)
    if part in _SCHEDULERS:
        if "scheduler_config.json" not in names:
            raise MissingWeights(f"{place} has no scheduler_config.json.", hint=COPY)
        return
    if part.startswith("tokenizer"):
        return
    if "config.json" not in names:
        raise MissingWeights(f"The component {part!r} has no config.json in {place}.", hint=COPY)
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt")))
        if pickled:
            raise UnsafeWeights(
                f"The component {part!r} has its weights only as a pickle ({pickled[0]}).",
                hint="Get the .safetensors file of the same model.",
            )
        raise MissingWeights(f"The component {part!r} has no weights in {place}.", hint=COPY)


def _check_readable(part: str, place: Path) -> None:
    """Raise for a half-written file, before a library stumbles over it."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(place.iterdir()):
        if path.name.startswith("._"):
            continue  # left by macOS beside the files themselves
        try:
            if path.suffix == ".json":
                read_json(path, LARGEST_VOCABULARY, most=MOST_WORDS, constants=True)
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            raise CorruptWeights(
                f"The component {part!r} is damaged: {path} cannot be read: "
                f"{library_message(error)}.",
                hint=COPY,
            ) from error
