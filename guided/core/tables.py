"""Tables about images that other programs wrote: CSV, TSV, JSON Lines and JSON (also COCO's).

The one reader for metadata of an index, labels of a probe and captions of a training.  A row names
its image under one of ``FILE_KEYS``; what cannot be used is kept as a sentence with file and line
(``Table.faults``), so that one wrong row condemns nothing and none is lost in silence.  A table
without a row about an image is another program's: it has no rows.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided.core.files import IMAGE_SUFFIXES
from guided.core.listing import ending
from guided.core.reading import LARGEST, LARGEST_TABLE, csv_rows, lines, parse_json, read_bytes
from guided.core.text import one_line
from guided.errors import UsageError

#: Keys of a row (columns of a CSV table) that name its image, and that hold its captions; the first
#: that is there counts, in any case of letters.
FILE_KEYS = (
    "file_name", "file", "filename", "image", "path", "file_path", "filepath", "image_path",
)  # fmt: skip
CAPTION_KEYS = ("text", "captions", "caption")
#: Endings of tables; ``.json`` may also be the settings of anything.
TABLE_ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".json")
#: Endings of text files whose lines are captions of the image of the same name.
TEXT_ENDINGS = (".txt", ".caption")
#: What --encoding explains.
ENCODING_HELP = "the encoding of tables and texts that are not UTF-8, such as cp1252 or shift_jis"
_BREAKS = frozenset("\0\n\r")
_MOST_VALUES = 8_000_000
_LARGEST_JSON = 256 << 20
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_ENCODINGS = (
    "cp1252 (western Europe), cp1250 (central Europe), cp1251 (Cyrillic), shift_jis, gb18030, big5,"
    " euc_kr or utf-16"
)


@dataclass(frozen=True)
class Row:
    """What a table says about an image: ``name`` as it is written, and the other keys.

    ``where`` is "TABLE, line N".
    """

    where: str
    name: str
    values: Mapping[str, Any]

    def absent(self) -> str:
        """Where it is and the name that it gives, of an image that is not there."""
        return f"{self.where}: {one_line(self.name[:200])}"


@dataclass
class Table:
    """The rows of a table, and what of it cannot be used ("TABLE, line N: reason").

    ``shown`` is the table's name in messages.
    """

    file: Path
    shown: str
    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_table(file: Path, encoding: str = "", folder: Path | None = None) -> Table:
    """The rows of a table about images.

    CSV values are text; JSON's NaN is None.  ``encoding`` is that of a file which is not UTF-8;
    messages name the table as seen from ``folder``.

    Raises:
        UsageError: it cannot be read, or is in another encoding (and is no other program's).
    """
    inside = folder is not None and file.is_relative_to(folder)
    table = Table(file, str(file.relative_to(folder)) if folder and inside else str(file))
    kind = ending(file.name)
    try:
        text = read_text(file, encoding)
    except _NotDecoded as error:
        # Its names and marks are plain ASCII in nearly every encoding.
        if _fill(Table(file, table.shown), kind, error.data.decode("latin-1")).rows:
            raise
        table.faults.append(error.message.replace(str(file), table.shown))
        return table
    return _fill(table, kind, text)


def _fill(table: Table, kind: str, text: str) -> Table:
    """The table with the rows of a text."""
    try:
        entries = _csv(table, kind, text) if kind in (".csv", ".tsv") else _json(table, kind, text)
        for place, entry in entries:
            where = f"{table.shown}, {place}"
            if isinstance(entry, str):
                table.faults.append(f"{where}: {entry}")
                continue
            found = _named(entry)
            if found is None:
                table.faults.append(f"{where}: it names no file ({' or '.join(FILE_KEYS[:2])})")
            else:
                table.rows.append(Row(where, *found))
    except ValueError as error:
        table.faults.append(f"{table.shown}: {error}")
    return table


def _named(entry: Mapping[Any, Any]) -> tuple[str, dict[str, Any]] | None:
    """The name of a row's image and its other values."""
    keys = {str(key).strip().lower().replace(" ", "_"): key for key in entry}
    for wanted in FILE_KEYS:
        name = entry.get(keys.get(wanted))
        if isinstance(name, str) and name.strip() and not _BREAKS & set(name.strip()):
            return name.strip(), {k: v for k, v in entry.items() if k != keys[wanted]}
    return None


# --------------------------------------------------------------------------- text


class _NotDecoded(UsageError):
    """A text in another encoding; ``data`` are its bytes."""

    data: bytes = b""


def read_text(file: Path, encoding: str = "", largest: int = LARGEST_TABLE) -> str:
    """A text in UTF-8, in what its byte order mark says, or else in ``encoding``.

    Raises:
        UsageError: an unknown encoding, another than these, too large, or it cannot be read.
    """
    try:
        data = read_bytes(file, largest)
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {error.strerror}.", hint="Check the name and its permissions."
        ) from error
    except ValueError as error:
        raise UsageError(f"{file} cannot be read: {error}.", hint="Split it in parts.") from error
    return decoded(data, str(file), encoding)


def decoded(data: bytes, where: str, encoding: str = "") -> str:
    """The text of bytes; as ``read_text``.

    Raises:
        UsageError: an unknown encoding, or another than these.
    """
    named = _known(encoding)
    marked = next((code for mark, code in _MARKS.items() if data.startswith(mark)), "")
    # UTF-8 cannot be taken for an older encoding, but 16 bits a letter for UTF-8 with zeros.
    tried = [marked] if marked else [named] if named[:6] in ("utf-16", "utf-32") else ["utf-8"]
    if named and named not in tried:
        tried.append(named)
    for code in tried:
        try:
            return data.decode(code)
        except UnicodeDecodeError as failure:
            error = failure
    line = data[: error.start].count(b"\n") + 1
    wrong = _NotDecoded(
        f"{where}, line {line}: not {' and not '.join(code.upper() for code in tried)}.",
        hint=f"Save it as UTF-8, or name its encoding (--encoding NAME; for guided train --set "
        f"encoding=NAME): {_ENCODINGS}.",
    )
    wrong.data = data
    raise wrong


def _known(encoding: str) -> str:
    """The plain name of an encoding.

    Raises:
        UsageError: there is none of this name.
    """
    if not encoding:
        return ""
    try:
        found = codecs.lookup(encoding)
        "".encode(found.name)  # those of bytes to bytes (base64) are none of text
    except LookupError as error:
        raise UsageError(
            f"There is no encoding {encoding[:40]!r}.", hint=f"For example: {_ENCODINGS}."
        ) from error
    return found.name


# --------------------------------------------------------------------------- rows

_Entry = tuple[str, "Mapping[Any, Any] | str"]
"""The place of an entry ("line 3"), and its values or why it has none."""


def _csv(table: Table, kind: str, text: str) -> Iterator[_Entry]:
    """The rows of a text with a line of columns, parted by commas, tabs or semicolons."""
    stream = io.StringIO(text, newline="")
    first = stream.readline()
    if first.lower().startswith("sep=") and len(first.strip()) == 5:  # as spreadsheets write
        delimiter = first.strip("\r\n")[4]
        head = stream.tell()
    else:
        usual = "\t" if kind == ".tsv" else ","
        delimiter = max((usual, ",", "\t", ";"), key=first.count)
        head = 0
    stream.seek(head)
    rows = list(csv_rows(stream, delimiter))
    if rows and text.count('"') % 2 and any("\n" in (cell or "") for cell in rows[-1][1].values()):
        rows[-1] = (*rows[-1][:2], "a quotation mark before it is not closed")
    for number, row, fault in rows:
        place = f"line {number + bool(head)}"
        if fault:
            yield place, fault
        elif any(value and value.strip() for value in row.values()):
            yield place, {column: value for column, value in row.items() if column}
    names = [name.strip() for name in first.strip().split(delimiter) if name.strip()]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        table.faults.append(f"{table.shown}, line 1: the column {twice!r} comes twice; the last is "
                            "used")  # fmt: skip


def _json(table: Table, kind: str, text: str) -> Iterator[_Entry]:
    """The entries of JSON Lines, or of one JSON value (whatever the file is called)."""
    whole = None
    if kind == ".json" or text.lstrip()[:1] == "[":
        try:
            whole = parse_json(text, _LARGEST_JSON, most=_MOST_VALUES, constants=True)
        except ValueError:
            if kind == ".json":
                raise
    if whole is not None or kind == ".json":
        for number, entry in enumerate(_entries(table, _plain(whole)), start=1):
            place = f"entry {number}"
            yield place, entry if isinstance(entry, Mapping) else "not a JSON object"
        return
    for number, line in enumerate(lines(io.StringIO(text, newline="")), start=1):
        if line.strip():
            try:
                entry = _plain(parse_json(line, constants=True))
            except ValueError as error:
                yield f"line {number}", f"not JSON ({error})"
                continue
            yield f"line {number}", entry if isinstance(entry, dict) else "not a JSON object"


def _entries(table: Table, value: Any) -> Iterable[Any]:
    """The entries in a JSON value: a list, COCO's tables, or a table by the names of images."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ValueError("neither a JSON list nor an object")
    images, notes = value.get("images"), value.get("annotations")
    if isinstance(images, list) and isinstance(notes, list):
        return _coco(table, images, notes)
    if _named(value) is not None:
        return [value]
    if value and all(ending(name) in IMAGE_SUFFIXES for name in value):
        return [
            {**said, "file_name": name} if isinstance(said, dict)
            else {"file_name": name, "text": said}
            for name, said in value.items()
        ]  # fmt: skip
    lists = [each for each in value.values() if isinstance(each, list) and each
             and all(isinstance(entry, dict) for entry in each)]  # fmt: skip
    return lists[0] if len(lists) == 1 else []


def _coco(table: Table, images: list[Any], notes: list[Any]) -> list[Any]:
    """COCO's images, each with the captions of its annotations where these are captions."""
    said: dict[str, list[Any]] = {
        repr(image.get("id")): [] for image in images if isinstance(image, dict)
    }
    captions = 0
    for number, note in enumerate(notes, start=1):
        if not isinstance(note, dict) or "caption" not in note:
            continue
        captions += 1
        own = said.get(repr(note.get("image_id")))
        if own is None:
            table.faults.append(f"{table.shown}, annotation {number}: it belongs to no image")
        else:
            own.append(note["caption"])
    if not captions:
        return images
    return [
        {**image, "captions": said[repr(image.get("id"))]} if isinstance(image, dict) else image
        for image in images
    ]


def _plain(value: Any) -> Any:
    """A JSON value with None where a number is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def captions_of(entry: Mapping[str, Any]) -> list[str]:
    """The captions in a row: one text, or a list of texts or of tables with a ``text``, each on one
    line; [] where it has the key and nothing under it.

    Raises:
        ValueError: no such key, or a caption that is no text; the reason.
    """
    keys = {str(key).strip().lower(): key for key in entry}
    there = [keys[key] for key in CAPTION_KEYS if key in keys]
    if not there:
        raise ValueError(f"it has no {', '.join(CAPTION_KEYS[:2])} or {CAPTION_KEYS[2]}")
    value: Any = next((entry[key] for key in there if entry[key]), None)
    return _texts(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    if isinstance(value, dict):
        inner = [value[key] for key in (*CAPTION_KEYS, "raw") if key in value]
        if inner:
            return _texts(inner[0])
    if value is None:
        return []
    if not isinstance(value, str):
        raise ValueError(f"the caption {json.dumps(value)[:40]} is not text")
    return [text] if (text := " ".join(value.split())) else []


def texts_beside(image: str, files: Container[str], encoding: str = "") -> list[str]:
    """The captions in those of ``files`` that have an image's name: lines of text, or in JSON.

    Raises:
        UsageError: a text in another encoding, or one that cannot be read.
    """
    stem = os.path.splitext(image)[0]  # noqa: PTH122
    sides = [Path(stem + side) for side in TEXT_ENDINGS if stem + side in files]
    if not sides and stem + ".json" in files:
        with contextlib.suppress(ValueError):  # settings of another program
            table = parse_json(read_text(Path(stem + ".json"), encoding, LARGEST), constants=True)
            return captions_of(table if isinstance(table, dict) else {})
    lined = (line for side in sides for line in read_text(side, encoding).splitlines())
    return [line.strip() for line in lined if line.strip()]
