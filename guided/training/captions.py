"""Captions of a folder of images: tables of any program, and text files beside the images.

No torch, and no image is opened here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from guided.core.files import IMAGE_SUFFIXES, STEPS_FILE
from guided.core.image_names import ImageNames
from guided.core.listing import Listing, ending, few, list_folder, others
from guided.core.tables import TABLE_ENDINGS, Row, captions_of, read_table, texts_beside
from guided.core.text import there
from guided.errors import UsageError

log = logging.getLogger(__name__)

_FORMS = (
    'Put a .txt file beside each image, or a table: captions.jsonl with lines like {"file": '
    '"a.jpg", "captions": ["a red house"]}, or captions.csv with the columns file and caption.'
)


class Captioned(NamedTuple):
    """An image's file and its captions, at least one."""

    file: Path
    captions: tuple[str, ...]


@dataclass
class CaptionSurvey:
    """What a folder holds: captioned images by file, and all that gives none.

    ``absent`` are rows whose image is not there ("TABLE, line N: NAME"), ``faults`` rows that
    cannot be used, with the reason, ``foreign`` tables without a caption of an image.
    """

    listing: Listing
    rows: list[Captioned] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    uncaptioned: list[Path] = field(default_factory=list)


def rows(folder: Path, encoding: str = "", *, warn: bool = True) -> list[Captioned]:
    """The captioned images below a folder, in the order of their paths; ``warn``: what is left
    out is logged.

    Tables are those of ``guided.core.tables`` (several rows about one image add up); an image that
    no table names takes the lines of the ``.txt`` or ``.caption`` file of the same name.  Hidden
    files, and tables without captions of images, are passed over.

    Raises:
        UsageError: no folder, a text in another encoding (with file and line), or no image with a
            caption.
    """
    result = survey(folder, encoding)
    if not result.rows:
        raise _nothing(folder, result)
    if not warn:
        return result.rows
    result.listing.warn()
    names = [str(file.relative_to(folder)) for file in result.uncaptioned]
    for message, found in (
        ("captions of images that are not there (%d): %s", result.absent),
        ("rows without a caption (%d): %s", result.faults),
        ("tables without captions of images, left out (%d): %s", result.foreign),
        ("images without a caption, left out (%d): %s", names),
    ):
        if found:
            log.warning(message, len(found), few(found))
    return result.rows


def survey(folder: Path, encoding: str = "") -> CaptionSurvey:
    """All that is in a folder, also where nothing in it is captioned.

    Raises:
        UsageError: no folder, or a text in another encoding.
    """
    result = CaptionSurvey(list_folder(folder))
    files = result.listing.files
    images = result.listing.images
    names = ImageNames(images)
    texts: dict[str, list[str]] = {}
    for file in files:
        if ending(file) in TABLE_ENDINGS and not file.endswith(STEPS_FILE):
            for image, captions in _said(result, Path(file), names, encoding):
                texts.setdefault(image, []).extend(captions)
    beside = set(files)
    for image in images:
        if image not in texts:
            texts[image] = texts_beside(image, beside, encoding)
    captioned = {Path(file): tuple(dict.fromkeys(said)) for file, said in texts.items()}
    result.rows = [Captioned(file, said) for file, said in sorted(captioned.items()) if said]
    result.uncaptioned = [file for file in map(Path, images) if not captioned[file]]
    return result


def _said(
    result: CaptionSurvey, file: Path, names: ImageNames, encoding: str
) -> Iterator[tuple[str, list[str]]]:
    """The images that a table names, each with the captions of a row."""
    table = read_table(file, encoding, result.listing.folder)
    found: list[tuple[Row, list[str]]] = []
    faults = list(table.faults)
    for row in table.rows:
        try:
            found.append((row, captions_of(row.values)))
        except ValueError as error:
            faults.append(f"{row.where}: {error}")
    if not found:
        # JSON may also be the settings or records of any program.
        if ending(file.name) != ".json" or any(f.startswith(f"{table.shown}: ") for f in faults):
            result.foreign.append(faults[0] if faults else f"{table.shown}: it is empty")
        return
    result.faults.extend(faults)
    for row, captions in found:
        image = names.find(file.parent, row.name) or _elsewhere(file.parent, row.name)
        if image is None:
            result.absent.append(row.absent())
        else:
            yield image, captions


def _elsewhere(folder: Path, name: str) -> str | None:
    """An image outside of the folder that a table names."""
    image = folder / name
    known = ending(name) in IMAGE_SUFFIXES and there(image) and image.is_file()
    return os.path.normpath(image) if known else None


def _nothing(folder: Path, result: CaptionSurvey) -> UsageError:
    wrong = [*result.faults, *result.foreign]
    if result.absent:
        return UsageError(
            f"None of the {len(result.absent)} captions in {folder} belongs to an image that is "
            f"there: {few(result.absent)}.",
            hint="File names are relative to the folder of their table.",
        )
    if result.uncaptioned:
        told = f" Not used: {few(wrong)}." if wrong else ""
        return UsageError(
            f"None of the {len(result.uncaptioned)} images in {folder} has a caption.{told}",
            hint=_FORMS,
        )
    return UsageError(
        f"There are no images in {folder}{others(result.listing)}.",
        hint=f"Looked for {', '.join(sorted(IMAGE_SUFFIXES))}.",
    )
