"""Metadata of the pictures of a folder: what tables in it, or a named table, say of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided.core.image_names import ImageNames
from guided.core.listing import Listing, few
from guided.core.tables import Table, read_table, texts_beside
from guided.errors import UsageError

#: Tables that are read where they lie in the folder or below it; the first counts where two differ.
METADATA = (
    "metadata.jsonl", "portraits.jsonl", "metadata.csv", "metadata.tsv", "metadata.json",
    "captions.jsonl",
)  # fmt: skip
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?")
#: Numbers as codes are written: postcodes, telephone numbers, long ids.
_CODE = re.compile(r"\+[0-9]+|0[0-9]+|-?[0-9]{19,}")
_NOT_A_NUMBER = frozenset({"", "nan", "NaN", "NAN", "-nan"})


@dataclass
class Metadata:
    """Metadata by file, and sentences about what of the tables is not used."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_metadata(listing: Listing, named: Path | None = None, encoding: str = "") -> Metadata:
    """What is said of the images in a listing, in a named table or in the ``METADATA`` among them.

    Images are named from the folder of their table, or from the listing's.  Of CSV columns without
    codes (``00123``) values that look like numbers are numbers, and NaN is nothing.  The ``.txt``
    or ``.caption`` file of an image's name gives its ``text``.

    Raises:
        UsageError: a table that cannot be read, or a named one without a row about an image.
    """
    found = Metadata()
    if named is not None:
        tables = [read_table(named.resolve(), encoding)]
        if not tables[0].rows:
            why = f" {few(tables[0].faults)}." if tables[0].faults else ""
            raise UsageError(
                f"The metadata {named} name no file.{why}",
                hint='Each row needs a "file", relative to the folder of the metadata.',
            )
    else:
        tables = [
            read_table(file, encoding, listing.folder)
            for file in sorted(
                (Path(file) for file in listing.files if Path(file).name in METADATA),
                key=lambda file: (file.parent, METADATA.index(file.name)),
            )
        ]
    names = ImageNames(listing.images if tables else ())
    for table in tables:
        _take_in(found, table, names, listing.folder)
    _add_texts(found, listing, encoding)
    return found


def _add_texts(found: Metadata, listing: Listing, encoding: str) -> None:
    """The captions in files beside images under ``text``, where no table says anything there."""
    files = frozenset(listing.files)
    unread: list[str] = []
    for image in listing.images:
        if "text" in found.values.get(image, {}):
            continue
        try:
            texts = texts_beside(image, files, encoding)
        except UsageError as error:  # no one said that it is a caption
            unread.append(error.message)
            continue
        if texts:
            found.values.setdefault(image, {})["text"] = texts[0] if len(texts) == 1 else texts
    if unread:
        found.warnings.append(f"{len(unread)} texts beside images are not used: {few(unread)}")


def _take_in(found: Metadata, table: Table, names: ImageNames, folder: Path) -> None:
    """Add what a table says; what an earlier one said stays."""
    own: dict[str, dict[str, Any]] = {}
    lost: list[str] = []
    again: list[str] = []
    rows = typed([row.values for row in table.rows]) if _is_text(table) else [
        row.values for row in table.rows
    ]  # fmt: skip
    for row, values in zip(table.rows, rows, strict=True):
        file = names.find(table.file.parent, row.name) or names.find(folder, row.name)
        if file is None:
            lost.append(row.absent())
        else:
            if file in own:
                again.append(row.absent())
            own.setdefault(file, {}).update(values)
    for message, named in (
        ("rows match no file", lost),
        ("rows cannot be used", table.faults),
        ("rows name a file once more and replace what was said of it", again),
    ):
        if named:
            found.warnings.append(f"{table.shown}: {len(named)} {message}: {few(named)}")
    for file, said in own.items():
        found.values[file] = {**said, **found.values.get(file, {})}


def _is_text(table: Table) -> bool:
    return table.file.suffix.lower() in (".csv", ".tsv")


def typed(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of text with numbers where they are meant: decided for each column by all its cells.

    A column with a code in it (``00123``) stays text; in one with numbers NaN is None.

    >>> typed([{"zip": "00123", "year": "1"}, {"zip": "45678", "year": "nan"}])
    [{'zip': '00123', 'year': 1}, {'zip': '45678', 'year': None}]
    """
    table = [dict(row) for row in rows]
    columns: dict[str, list[str]] = {}
    for row in table:
        for name, value in row.items():
            if isinstance(value, str):
                columns.setdefault(name, []).append(value.strip())
    coded = {name for name, cells in columns.items() if any(map(_CODE.fullmatch, cells))}
    counted = {
        name for name, cells in columns.items()
        if name not in coded and any(map(_NUMBER.fullmatch, cells))
    }  # fmt: skip
    return [
        {name: _cell(value, numbers=name in counted) for name, value in row.items()}
        for row in table
    ]  # fmt: skip


def _cell(text: Any, *, numbers: bool) -> Any:
    if not isinstance(text, str) or text == "":
        return None
    plain = text.strip()
    if not numbers:
        return text
    if plain in _NOT_A_NUMBER:
        return None
    match = _NUMBER.fullmatch(plain)
    if match is None:
        return text
    return float(plain) if match[2] or match[3] else int(plain)
