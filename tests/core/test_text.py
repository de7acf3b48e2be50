"""Names of any bytes in JSON, on one line, in TOML and databases, and read back."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from guided.core.text import absolute, encodable, json_text, one_line, restored, stored, there

_BYTES = st.binary(max_size=60).map(os.fsdecode)
_ANY = st.one_of(_BYTES, st.text(), st.text("\U0010dc00\U0010dc80\U0010dcff\udc80\udcffa\n\u2028"))


@given(_ANY)
def test_json_is_utf8_and_one_line_and_reads_back(name: str) -> None:
    text = json_text({"file": name, name: [name]})
    assert json.loads(text.encode()) == {"file": name, name: [name]}
    assert len(text.splitlines()) == 1


@given(_ANY)
def test_what_is_stored_is_utf8_and_comes_back(name: str) -> None:
    held = stored(name)
    assert restored(held) == name
    if not any(0xD800 <= ord(char) < 0xDC80 for char in name):
        held.encode()


@given(_ANY, _ANY)
def test_two_names_are_stored_apart(one: str, other: str) -> None:
    assert (stored(one) == stored(other)) == (one == other)


@given(_ANY)
def test_lines_for_people_are_lines(name: str) -> None:
    shown = one_line(name)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set("\x1b\r\n\t\u202e\u2066\u200f\x9b")
    encodable(name).encode()


def test_plain_names_stay_as_they_are() -> None:
    for name in ("a b.png", "Zoë-日本.png", "👩‍👩‍👧 🏳️‍🌈.png", "-x 'q' \"r\".png", "می‌خواهم"):
        assert one_line(name) == encodable(name) == stored(name) == name
    assert json_text({"é": 1}) == '{"é": 1}'
    assert one_line("caf\udce9\n\u202e") == r"caf\udce9\n\u202e"


def test_a_file_whose_name_begins_with_a_tilde(tmp_path: Path) -> None:
    (tmp_path / "~nobody.png").touch()
    assert absolute("~nobody.png", tmp_path) == tmp_path / "~nobody.png"
    assert absolute("~no-such-user/a.png", tmp_path) == tmp_path / "~no-such-user" / "a.png"
    assert absolute("~/a.png", tmp_path) == Path.home() / "a.png"


def test_a_name_that_no_system_takes_is_not_there(tmp_path: Path) -> None:
    assert not there(tmp_path / ("x" * 5000))
    assert not there(tmp_path / "a\0b")
    assert there(tmp_path)
