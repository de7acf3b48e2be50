"""Bounded reading of JSON, TOML and text files that others wrote.

Every limit is checked before the work it bounds: bytes before a file is in memory, nesting and the
number of values before a parser sees the text.  Whatever is wrong raises ValueError (for TOML its
subclass ``tomllib.TOMLDecodeError``) with the reason, for the caller to say which file it was and
what to do; nothing raises RecursionError or MemoryError.

JSON is read strictly: no name twice in a table (one of the two would be silently unused), no NaN
or Infinity unless ``constants`` allows them, no whole number of more than 64 digits.  A byte order
mark is passed over, as editors on Windows write it.
"""

from __future__ import annotations

import csv
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

LARGEST = 4 << 20
"""Bytes of a JSON file, where a caller does not say otherwise."""
DEEPEST = 64
"""Levels of lists and tables in JSON."""
MOST_VALUES = 400_000
"""Values in a JSON file; each takes up to about 100 bytes of memory."""
LONGEST_LINE = 4 << 20
"""Characters in a line of a table (JSON lines, CSV)."""
LARGEST_VOCABULARY, MOST_WORDS = 48 << 20, 4_000_000
"""Bytes and values of a tokenizer's files."""
LARGEST_TOML = 256 * 1024
"""Characters of a TOML file."""
LARGEST_TEXT = 16 << 20
"""Bytes of a plain text file."""
LARGEST_TABLE = 1 << 30
"""Bytes of a table of captions, which is read whole."""
MOST_COLUMNS = 1000
"""Columns of a CSV table: every row takes time and memory for each of them."""
MOST_DIGITS = 64
RECORD: dict[str, Any] = {"largest": 32 << 20, "most": 2_000_000, "constants": True}
"""Limits of what runs keep: records, journals, lineages."""

_JSON_PART = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},]', re.DOTALL)
_TOML_PART = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""|\Z)' + r"|'''.*?(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?' + r"|'[^'\n]*+'?"
    r"|\#[^\n]*|[^\s.=,\[\]{}\"'#]+|[.\n=,\[\]{}]",
    re.DOTALL,
)


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """The content of a regular file of at most ``largest`` bytes.

    Raises:
        ValueError: larger, or not a regular file.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"larger than {_size(largest)}")
    return data


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """A UTF-8 text of at most ``largest`` bytes, without its byte order mark.

    Raises:
        ValueError: larger, not UTF-8 or not a regular file.
        OSError: it cannot be read.
    """
    return read_bytes(path, largest).decode("utf-8-sig").replace("\r\n", "\n")


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


# --------------------------------------------------------------------------- JSON


def read_json(path: Path, largest: int = LARGEST, **limits: Any) -> Any:
    """The JSON value in a file; limits as in ``parse_json``.

    Raises:
        ValueError: not JSON, or beyond a limit.
        OSError: it cannot be read.
    """
    return parse_json(read_bytes(path, largest), largest, **limits)


def parse_json(
    data: str | bytes,
    largest: int = LARGEST,
    *,
    deepest: int = DEEPEST,
    most: int = MOST_VALUES,
    constants: bool = False,
    table: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The JSON value in a text: at most ``largest`` long, ``deepest`` levels, ``most`` values.

    ``table`` makes a table of its pairs (by default a dictionary whose names come once).

    Raises:
        ValueError: not JSON or not UTF-8, beyond a limit, a name twice in a table, or NaN and
            Infinity without ``constants``.

    >>> parse_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    """
    if len(data) > largest:
        raise ValueError(f"larger than {_size(largest)}")
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    _check_json(text, deepest, most)
    given: dict[str, Any] = {"parse_int": _int, "object_pairs_hook": table or _table}
    if not constants:
        given |= {"parse_constant": _constant, "parse_float": _float}
    try:
        return json.loads(text, **given)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _check_json(text: str, deepest: int, most: int) -> None:
    """Depth and number of values, without parsing; cheap where the text cannot exceed them."""
    opening = text.count("[") + text.count("{")
    if opening <= deepest and opening + text.count(",") < most:
        return
    depth, count = 0, 1
    for part in _JSON_PART.finditer(text):
        sign = part[0]
        if sign in ("[", "{"):
            depth += 1
            count += 1
            if depth > deepest:
                raise ValueError(f"nested deeper than {deepest} levels")
        elif sign in ("]", "}"):
            depth -= 1
        elif sign == ",":
            count += 1
        if count > most:
            raise ValueError(f"more than {most} values")


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"a name comes twice in a table: {twice[:60]!r}")
    return table


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def lines(stream: IO[str], longest: int = LONGEST_LINE) -> Iterator[str]:
    """The lines of an open text file, each with its end and at most ``longest`` characters.

    Raises:
        ValueError: a longer line, named by its number.
    """
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise ValueError(f"line {number} is longer than {_size(longest)}")
        yield line.removeprefix("\ufeff") if number == 1 else line


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, each without its end and at most ``LONGEST_LINE`` characters.

    Raises:
        ValueError: a longer line, or not UTF-8.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8") as stream:
        for line in lines(stream):
            yield line.rstrip("\n")


def csv_rows(
    stream: IO[str], delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str | None], str]]:
    """The rows of a CSV table under the names of its columns, each with its line's number.

    The names are those of the first line, without spaces around them; what a row lacks is None.
    The third part says what is wrong with a row that is longer than its heading; else "".

    Raises:
        ValueError: more than ``MOST_COLUMNS``, or no CSV.
    """
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        reader = csv.reader(lines(stream), delimiter=delimiter)
        columns = [name.strip() for name in next(reader, [])]
        if len(columns) > MOST_COLUMNS:
            raise ValueError(f"{len(columns)} columns, more than {MOST_COLUMNS}")
        for row in reader:
            fault = ""
            if len(row) > len(columns) and any(row[len(columns) :]):
                fault = f"it has {len(row)} values for {len(columns)} columns"
            if row:
                padded = [*row[: len(columns)], *[None] * (len(columns) - len(row))]
                yield reader.line_num, dict(zip(columns, padded, strict=True)), fault
    except csv.Error as error:
        raise ValueError(str(error)) from error
    finally:
        csv.field_size_limit(before)


# --------------------------------------------------------------------------- TOML


def read_toml(path: Path, largest: int = LARGEST_TOML) -> dict[str, Any]:
    """The table in a TOML file; limits as in ``parse_toml``.

    Raises:
        tomllib.TOMLDecodeError: not TOML or not UTF-8, or beyond a limit.
        OSError: it cannot be read.
    """
    try:
        text = read_text(path, largest)
    except ValueError as error:
        raise tomllib.TOMLDecodeError(str(error)) from error
    return parse_toml(text, largest)


def parse_toml(text: str, largest: int = LARGEST_TOML, deepest: int = 8) -> dict[str, Any]:
    """The table in a TOML text of at most ``largest`` characters and ``deepest`` levels.

    Raises:
        tomllib.TOMLDecodeError: not TOML, beyond a limit, or a whole number beyond 64 bits.

    >>> parse_toml("a.b = 1")
    {'a': {'b': 1}}
    """
    if len(text) > largest:
        raise tomllib.TOMLDecodeError(f"larger than {_size(largest)}")
    deep = f"nested too deep; at most {deepest} levels are allowed"
    if _toml_depth(text) > deepest:
        raise tomllib.TOMLDecodeError(deep)
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise tomllib.TOMLDecodeError(deep) from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number of thousands of digits, an impossible date
        raise tomllib.TOMLDecodeError(str(error)) from error
    _check_values(data, deepest, deep)
    return data


def _toml_depth(text: str) -> int:
    """The deepest brackets, or the most dots in a key: what a parser takes long over."""
    most = dots = depth = 0
    for part in _TOML_PART.finditer(text):
        first = part[0][0]
        if first == ".":
            dots += 1
            most = max(most, dots)
        elif first in "\n=,[]{}":
            dots = 0
            if first in "[{":
                depth += 1
                most = max(most, depth - 1)
            elif first in "]}":
                depth = max(depth - 1, 0)
    return most


def _check_values(data: dict[str, Any], deepest: int, deep: str) -> None:
    todo: list[tuple[Any, int]] = [(data, 0)]
    while todo:
        item, depth = todo.pop()
        if depth > deepest:
            raise tomllib.TOMLDecodeError(deep)
        if isinstance(item, int) and not -(1 << 63) <= item < 1 << 64:
            raise tomllib.TOMLDecodeError("a whole number beyond 64 bits")
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        todo.extend((part, depth + 1) for part in inner)
