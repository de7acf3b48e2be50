"""What lies in a folder: picture files with size and time, their metadata, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from guided.core.listing import Listing, list_folder, others
from guided.errors import UsageError
from guided.retrieval.metadata import Metadata, read_metadata
from guided.retrieval.writer import Entry


@dataclass(frozen=True)
class FolderSurvey:
    """The pictures of a folder by absolute path, each with its metadata.

    ``left_out`` are files that look like pictures and are not read, ``unreachable`` folders and
    files that the system does not let us see now, both with reasons; ``warnings`` name rows of
    metadata that are not used.
    """

    folder: Path
    entries: list[Entry]
    left_out: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def pictures(folder: Path, skip: Path | None = None) -> Iterator[Entry]:
    """The picture files below a folder, by absolute path, in the order of their names.

    Hidden files and folders are left out, links to folders are not followed, and nothing below
    ``skip`` (the index itself, perhaps) is seen; the log names what is left out.

    Raises:
        UsageError: no such folder.
    """
    listing = list_folder(folder.resolve(), skip)
    yield from _entries(listing)
    listing.warn()


def survey(
    folder: Path, skip: Path | None = None, *, metadata: Path | None = None, encoding: str = ""
) -> FolderSurvey:
    """All that an index wants to know of a folder; ``metadata`` is a table besides those in it.

    Raises:
        UsageError: no such folder, no picture in it, or metadata that cannot be read.
    """
    listing = list_folder(folder.resolve(), skip)
    entries = list(_entries(listing))
    if not entries:
        raise UsageError(
            f"There is no picture in the folder {folder}{others(listing)}.",
            hint="Name a folder that holds PNG, JPEG, WebP, GIF, TIFF or BMP files.",
        )
    known: Metadata = read_metadata(listing, metadata, encoding)
    return FolderSurvey(
        listing.folder,
        [replace(entry, metadata=known.values.get(entry.file, {})) for entry in entries],
        listing.left_out,
        listing.unreachable,
        known.warnings,
    )


def _entries(listing: Listing) -> Iterator[Entry]:
    """The pictures of a listing; one that the system does not show is noted there."""
    for file in listing.images:
        try:
            state = os.stat(file)  # noqa: PTH116 (a Path for each file is slow)
        except OSError:
            if reason := whereabouts(file):
                listing.unreachable[file] = reason
            continue
        yield Entry(file, state.st_size, state.st_mtime_ns)


def whereabouts(file: str) -> str:
    """Why a file cannot be reached now; "" where it is there, or gone for all that can be seen."""
    try:
        os.stat(file)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return "the link leads to no file now" if os.path.islink(file) else ""  # noqa: PTH114
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def missing(file: str) -> bool:
    """Whether a file of an index is not there now, gone or unreachable."""
    return not os.path.isfile(file)  # noqa: PTH113
