"""What a recipe that came in a picture asks for, and what of it needs the user's yes.

Without a yes such a recipe may use the known models and the files beside it, and write into the
folder of its own run, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guided.core.text import weighted_term
from guided.recipe import WEIGHTS, Kind, Recipe
from guided.zoo.kits import kit_names, load_kit
from guided.zoo.resolve import names

_FOLDER_SCHEME = "local-dir:"
#: Keys that name a class as "module:Class", and what that class is.
_CLASSES = {"kind": "loss", "method": "method"}


def consent_requests(recipe: Recipe, beside: Path) -> list[str]:
    """What the recipe asks for beyond known models and the files in the folder ``beside``.

    One line for each: a model that is trained, a path that is written, a file that is read, a
    model, a module that is imported.  Paths are judged after ``~``, ``..`` and links are resolved;
    relative ones start at the current folder, as they would in the run.  Hidden files are never
    beside a picture.
    """
    asked = [f"train a model ({recipe.options.objective})"] if recipe.task == "train" else []  # type: ignore[attr-defined]
    known = _known_models()
    for key, kind, text in recipe.mentions():
        asked += _asked(key, kind, text, beside.resolve(), known)
    return list(dict.fromkeys(asked))


def _known_models() -> frozenset[str]:
    kits = (model for kit in kit_names() for model in load_kit(kit).values())
    return frozenset((*names(), *kits))


def _asked(key: str, kind: Kind, text: str, beside: Path, known: frozenset[str]) -> Iterator[str]:
    """The wish of one text of a recipe, if it is one."""
    if key in _CLASSES and ":" in text:  # of a module that is no part of the program
        yield f"run code of the module {text.partition(':')[0]} (the {_CLASSES[key]} {text})"
    elif kind == "write":
        yield f"write to {_absolute(text)} ({key})"
    elif kind == "read":
        if not _is_beside(text, beside):
            yield f"read {_absolute(text)} ({key})"
    elif kind == "either":
        for name in {text, text.strip(), weighted_term(text)[1]}:
            if _is_there(name) and not _is_beside(name, beside):
                yield f"read {_absolute(name)} ({key})"
    elif kind == "model" and text not in known:
        path = text.removeprefix(_FOLDER_SCHEME)
        is_path = path != text or Path(text).suffix.lower() in WEIGHTS or _is_there(text)
        if not (is_path and _is_beside(path, beside)):
            yield f"load the model {text} ({key})"


def _absolute(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # the home of a user who is not known here
        return Path(text).absolute()


def _is_there(text: str) -> bool:
    try:
        return _absolute(text).exists()
    except (OSError, ValueError):
        return False


def _is_beside(text: str, beside: Path) -> bool:
    """Whether a file or folder, and every file in it, is in the folder ``beside``."""
    try:
        path = _absolute(text).resolve()
        if not path.is_relative_to(beside) or any(
            part.startswith(".") for part in path.relative_to(beside).parts
        ):
            return False
        links = (entry for entry in path.rglob("*") if entry.is_symlink()) if path.is_dir() else ()
        return all(link.resolve().is_relative_to(beside) for link in links)
    except (OSError, ValueError, RuntimeError):
        return False
