"""The files that a verb's options name, looked into before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from guided.core.reading import LARGEST_VOCABULARY, MOST_WORDS, read_json
from guided.errors import CorruptWeights
from guided.zoo.structure import CLIP_WEIGHTS, SUFFIXES, check_structure


def check_named(values: Iterable[object]) -> None:
    """``check_structure`` of every weight file among the values of a verb's options.

    A file is named by its path, a CLIP's or language model's folder also as ``local-dir:FOLDER``.
    Whatever is not there or is no such file is passed over.

    Raises:
        CorruptWeights, UnsafeWeights, CannotDo: as ``check_structure``.
    """
    for value in values:
        if isinstance(value, dict):
            check_named(value.values())
        elif isinstance(value, (list, tuple)):
            check_named(value)
        elif isinstance(value, (str, Path)):
            text = str(value)
            folder = Path(text.removeprefix("local-dir:")).expanduser()
            if text.startswith("local-dir:") or (text and _is_model(folder)):
                _check_folder(folder)
            elif Path(text).suffix in SUFFIXES and Path(text).expanduser().is_file():
                check_structure(Path(text).expanduser())


def _is_model(folder: Path) -> bool:
    """Whether there is a folder with the settings of a model; a text need be no path at all."""
    try:
        return any(folder.glob("*config.json"))
    except (OSError, ValueError):
        return False


def _check_folder(folder: Path) -> None:
    """The configuration, vocabulary and weights that a library would read in a folder."""
    for path in sorted(folder.glob("[!.]*.json")) if folder.is_dir() else ():
        try:
            read_json(path, LARGEST_VOCABULARY, most=MOST_WORDS, constants=True)
        except (OSError, ValueError) as error:
            raise CorruptWeights(
                f"{path} is not JSON that can be read: {error}.",
                hint="Get the folder again from its source.",
            ) from error
    for name in CLIP_WEIGHTS:
        if (folder / name).is_file():
            check_structure(folder / name)
