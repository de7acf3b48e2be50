"""What lies in a folder: picture files with size and time, and the metadata written beside them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guided.core.files import PICTURES
from guided.errors import UsageError
from guided.index.writer import Entry

METADATA = ("metadata.jsonl", "portraits.jsonl", "metadata.csv")


def pictures(folder: Path, skip: Path | None = None) -> Iterator[Entry]:
    """The picture files below a folder, by absolute path, in the order of their names.

    Hidden files and folders are left out, links to folders are not followed, and nothing below
    ``skip`` (the index itself, perhaps) is seen.

    Raises:
        UsageError: no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Name the folder of the pictures.")
    hidden = skip.resolve() if skip is not None else None
    for place, folders, files in os.walk(folder.resolve()):
        root = Path(place)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and root / name != hidden
        )
        for name in sorted(files):
            if name.startswith(".") or Path(name).suffix.lower() not in PICTURES:
                continue
            try:
                state = (root / name).stat()
                (root / name).as_posix().encode()
            except (OSError, UnicodeEncodeError):
                continue
            yield Entry(str(root / name), state.st_size, state.st_mtime_ns)


def read_metadata(path: Path) -> dict[str, Mapping[str, Any]]:
    """Metadata by absolute file, from JSON lines or CSV with a key ``file``.

    Files are relative to the folder of ``path``.  CSV values that look like numbers are numbers.

    Raises:
        UsageError: a file that cannot be read, or a line without a ``file``.
    """
    found: dict[str, Mapping[str, Any]] = {}
    hint = 'Each line needs a "file", relative to the folder of the metadata.'
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = _csv_rows(stream) if path.suffix == ".csv" else _json_rows(stream)
            for number, row in enumerate(rows, start=1):
                if not isinstance(row, dict) or not isinstance(row.get("file"), str):
                    raise UsageError(f"Entry {number} of {path} names no file.", hint=hint)
                target = os.path.normpath(path.resolve().parent / row["file"])
                found[target] = {key: value for key, value in row.items() if key != "file"}
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"The metadata {path} cannot be read: {error}.", hint=hint) from error
    return found


def _json_rows(stream: Iterator[str]) -> Iterator[Any]:
    for line in stream:
        if line.strip():
            yield json.loads(line)


def _csv_rows(stream: Iterator[str]) -> Iterator[Any]:
    for row in csv.DictReader(stream):
        yield {key: _number(value) if key != "file" else value for key, value in row.items()}


def _number(text: str | None) -> str | int | float | None:
    if text is None or text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def metadata_beside(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What ``metadata.jsonl``, ``portraits.jsonl`` or ``metadata.csv`` in the folder says."""
    for name in METADATA:
        if (folder / name).is_file():
            return read_metadata(folder / name)
    return {}
