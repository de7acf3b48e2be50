"""The journal of a batch: added whole, cut back after a crash, never mixed, safe on a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from guided.core import unfinished
from guided.core.journal import Journal, differing
from guided.errors import OutputError

SETTINGS = {"prompt": "a hat", "seed": 1}


def opened(folder: Path, **settings: object) -> Journal:
    return Journal(folder, {**SETTINGS, **settings}, lines="rows.jsonl", key="row")


def test_rows_are_there_when_it_is_opened_again(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.png")
    opened(tmp_path).add([{"row": "1", "file": name}, {"row": "2"}])
    assert opened(tmp_path).done == {"1": {"row": "1", "file": name}, "2": {"row": "2"}}


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    opened(tmp_path).add([{"row": "1"}])
    whole = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(whole + b'{"row": "2", "fi')
    journal = opened(tmp_path)
    assert set(journal.done) == {"1"}
    assert (tmp_path / "rows.jsonl").read_bytes() == whole
    journal.add([{"row": "2"}])
    assert set(opened(tmp_path).done) == {"1", "2"}


def test_other_settings_are_named_and_refused(tmp_path: Path) -> None:
    opened(tmp_path).add([{"row": "1"}])
    with pytest.raises(OutputError, match=r"other settings \(seed, steps\)"):
        opened(tmp_path, seed=2, steps=3)
    assert set(opened(tmp_path).done) == {"1"}
    assert differing(tmp_path / "rows.jsonl", SETTINGS) == []
    assert differing(tmp_path / "other.jsonl", SETTINGS) is None


def test_lines_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("mine\n")
    with pytest.raises(OutputError, match="did not begin"):
        opened(tmp_path)
    assert (tmp_path / "rows.jsonl").read_text() == "mine\n"


def test_begun_afresh_it_forgets(tmp_path: Path) -> None:
    opened(tmp_path).add([{"row": "1"}])
    fresh = Journal(tmp_path, {"seed": 9}, lines="rows.jsonl", key="row", afresh=True)
    assert fresh.done == {}


def test_a_full_disk_says_so_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    journal.add([{"row": "1"}])
    before = (tmp_path / "rows.jsonl").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    unfinished.note("1 of 2 done are in HERE; the same command goes on")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="the disk is full") as caught:
            journal.add([{"row": "2"}])
    assert str(tmp_path / "rows.jsonl") in caught.value.message
    assert "1 of 2 done are in HERE; the same command goes on" in caught.value.hint
    assert "elete" not in str(caught.value)
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    unfinished.begin(watched=False)
    journal.add([{"row": "2"}])
    assert set(opened(tmp_path).done) == {"1", "2"}


def test_an_interruption_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)

    def interrupted(handle: int) -> None:
        raise unfinished.Interrupted

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(unfinished.Interrupted):
        journal.add([{"row": "1"}])
    assert (tmp_path / "rows.jsonl").read_bytes() == b""
