"""Bounded reading: what JSON and TOML of others may be, and that refusing costs next to nothing."""

from __future__ import annotations

import io
import os
import time
import tomllib
from pathlib import Path

import pytest

from guided.core import reading
from guided.core.reading import lines, parse_json, parse_toml, read_bytes, read_json, read_toml

DEEP = {
    "lists": "[" * 100_000,
    "tables": '{"a":' * 100_000,
    "closed": "[" * 5000 + "]" * 5000,
    "behind a text": '["\\"[[", ' + "[" * 5000,
    "many values": "[" + "1," * 500_000 + "1]",
    "many lists": "[" + "[]," * 500_000 + "[]]",
    "digits": "1" * 100_000,
    "too large": "[" + " " * (5 << 20) + "]",
    "infinite": "[1e999]",
    "not a number": '{"a": NaN}',
    "minus infinity": "-Infinity",
    "twice": '{"a": 1, "b": 2, "a": 3}',
    "half": '{"a"',
    "unterminated": '"' + "\\" * 9999,
    "empty": "",
}


@pytest.mark.parametrize("name", sorted(DEEP))
def test_json_beyond_a_limit_is_a_value_error_at_once(name: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"[a-z]") as caught:
        parse_json(DEEP[name])
    assert time.process_time() - began < 1
    assert len(str(caught.value)) < 200


def test_json_bytes_that_are_no_utf8_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(b'"\xff"')


def test_sound_json_is_read_as_it_is() -> None:
    inner: object = 1
    for _ in range(64):
        inner = [inner]
    assert parse_json(str(inner)) == inner
    assert parse_json(b'\xef\xbb\xbf{"a": "[[[[{{{{,,,,"}') == {"a": "[[[[{{{{,,,,"}
    assert parse_json("[" + ", ".join(['"[{,"'] * 300_000) + "]")[-1] == "[{,"
    # transformers writes this for "no limit"
    assert parse_json("1000000000000000019884624838656") == 1000000000000000019884624838656
    assert parse_json("[1e300, -0.5, true, null]") == [1e300, -0.5, True, None]
    assert parse_json("[NaN]", constants=True)[0] != 0


TOML = {
    "lists": "a = " + "[" * 100_000,
    "inline tables": "a = " + "{a=" * 50_000,
    "a dotted key": "a." * 100_000 + "a = 1",
    "a dotted title": "[" + "a." * 100_000 + "a]",
    "spaced dots": "a . " * 50_000 + "a = 1",
    "quoted dots": '"a".' * 50_000 + "a = 1",
    "nine lists": "a = " + "[" * 9 + "]" * 9,
    "digits": "a = " + "1" * 100_000,
    "hexadecimal": "a = 0x" + "f" * 100_000,
    "beyond 64 bits": "a = 18446744073709551616",
    "too large": "#" * (300 * 1024),
    "an impossible date": "a = 2020-13-41",
    "quotes": '"' * 100_000,
    "twice": "a = 1\na = 2",
}


@pytest.mark.parametrize("name", sorted(TOML))
def test_toml_beyond_a_limit_is_a_toml_error_at_once(name: str) -> None:
    began = time.process_time()
    with pytest.raises(tomllib.TOMLDecodeError):
        parse_toml(TOML[name])
    assert time.process_time() - began < 1


def test_sound_toml_is_read_as_it_is() -> None:
    assert parse_toml("a.b.c.d = [[[1]]] # [[[[[[[[[[[[") == {"a": {"b": {"c": {"d": [[[1]]]}}}}
    assert parse_toml('a = "[[[[[[[[[[[[.............."') == {"a": "[[[[[[[[[[[[.............."}
    assert parse_toml("[[t]]\nx = 1\n[[t]]\nx = -9223372036854775808\n")["t"][1]["x"] == -(2**63)


def test_files_are_bounded_before_they_are_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    for read in (read_json, read_toml, read_bytes):
        began = time.process_time()
        with pytest.raises(ValueError, match="larger than"):
            read(huge)
        assert time.process_time() - began < 1
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(pipe)
    with pytest.raises(OSError, match="none"):
        read_json(tmp_path / "none.json")


def test_a_line_is_bounded_and_named() -> None:
    assert list(lines(io.StringIO("\ufeffa\nb\n"))) == ["a\n", "b\n"]
    with pytest.raises(ValueError, match="line 2 is longer than"):
        list(lines(io.StringIO("a\n" + "b" * 5000), longest=1024))


def test_a_csv_table_is_read_under_its_names() -> None:
    table = "\ufefffile , label,\r\na,b\r\n\r\nc,d,,\r\n"
    rows = list(reading.csv_rows(io.StringIO(table, newline="")))
    assert rows == [
        (2, {"file": "a", "label": "b", "": None}, ""),
        (4, {"file": "c", "label": "d", "": ""}, ""),
    ]


def test_a_csv_row_that_is_too_long_is_told_apart() -> None:
    rows = list(reading.csv_rows(io.StringIO("a,b\n1,2,3\n4,5\n")))
    assert [(line, fault) for line, _, fault in rows] == [
        (2, "it has 3 values for 2 columns"),
        (3, ""),
    ]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (",".join("ab" * 1000) + "\n" + "a\n" * 1000, "columns, more than"),
        ("a,b\n" + "x" * (reading.LONGEST_LINE + 1), "line 2 is longer"),
    ],
)
def test_a_csv_table_beyond_its_budget(table: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(reading.csv_rows(io.StringIO(table)))
