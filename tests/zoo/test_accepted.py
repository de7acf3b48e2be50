"""A sound file is checked once; a file that was written since is checked again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guided.errors import CorruptWeights
from guided.zoo.accepted import SETTLED, accepted_once


def counting(seen: list[Path]) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        seen.append(path)
        if path.read_bytes() != b"sound":
            raise CorruptWeights(f"{path} is not sound.")

    return accepted_once(check)


def settled() -> None:
    time.sleep(SETTLED + 0.05)


def test_what_was_accepted_is_not_read_again_until_it_is_written(tmp_path: Path) -> None:
    seen: list[Path] = []
    check, file = counting(seen), tmp_path / "a.pt"
    file.write_bytes(b"sound")
    settled()
    before = file.stat()
    for _ in range(3):
        check(file)
    assert len(seen) == 1
    file.write_bytes(b"wrong")  # as long, and made to look as old
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    settled()
    for _ in range(2):
        with pytest.raises(CorruptWeights):
            check(file)
    assert len(seen) == 3


def test_a_file_written_just_now_is_read_each_time(tmp_path: Path) -> None:
    seen: list[Path] = []
    check, file = counting(seen), tmp_path / "a.pt"
    for content in (b"sound", b"wrong", b"sound"):
        file.write_bytes(content)
        if content == b"sound":
            check(file)
        else:
            with pytest.raises(CorruptWeights):
                check(file)
    assert len(seen) == 3


def test_another_file_in_its_place_is_checked(tmp_path: Path) -> None:
    seen: list[Path] = []
    check, file, other = counting(seen), tmp_path / "a.pt", tmp_path / "b.pt"
    file.write_bytes(b"sound")
    other.write_bytes(b"wrong")
    settled()
    check(file)
    other.replace(file)
    settled()
    with pytest.raises(CorruptWeights):
        check(file)
