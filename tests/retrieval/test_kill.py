"""Kill a writer at any line of its code: nothing committed is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from guided.errors import StoreError
from guided.retrieval import schema
from guided.retrieval.store import open_store
from guided.retrieval.writer import Writer
from tests.retrieval.folder import bring_up, check, fill

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
PLACES = (f"{os.sep}guided{os.sep}retrieval{os.sep}", f"core{os.sep}files.py")


def in_a_child(work: Callable[[], None]) -> int:
    """Run work in a forked process; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_lines(limit: int | None, tell: Callable[[int], None] | None = None) -> Callable[..., Any]:
    """A trace function that counts lines of the index's code and kills the process at one."""
    seen = 0

    def on_line(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal seen
        if event == "line":
            seen += 1
            if tell is not None:
                tell(seen)
            if seen == limit:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        return on_line if any(p in frame.f_code.co_filename for p in PLACES) else None

    return on_call


def prepare(folder: Path) -> tuple[Path, Path]:
    """A folder with an index of half of it, changes since, and enough waste to be compacted."""
    pictures, index = folder / "pictures", folder / "index"
    files = fill(pictures, 12)
    bring_up(index, pictures, commit=3)
    fill(pictures, 18, start=30)
    files[0].unlink()
    files[1].write_bytes(b"changed")
    return pictures, index


def run_and_compact(index: Path, pictures: Path) -> None:
    bring_up(index, pictures, commit=4)
    with open_store(index) as store, Writer(store) as writer:
        writer.compact()


def lines_of_a_whole_run(folder: Path) -> int:
    pictures, index = prepare(folder)
    total = 0

    def tell(number: int) -> None:
        nonlocal total
        total = number

    sys.settrace(count_lines(None, tell))
    try:
        run_and_compact(index, pictures)
    finally:
        sys.settrace(None)
    return total


def survive(folder: Path, point: int) -> None:
    pictures, index = prepare(folder)
    with open_store(index) as store:
        before = store.snapshot().files

    def work() -> None:
        sys.settrace(count_lines(point))
        run_and_compact(index, pictures)

    assert status_of(in_a_child(work)) == -signal.SIGKILL
    listed = {str(file) for file in pictures.iterdir()}
    with open_store(index) as store:
        snapshot = store.snapshot()
        assert not snapshot.damage
        assert len(set(snapshot.files)) == len(snapshot.files)
        kept = {file for file in before if file in listed}
        assert kept <= set(snapshot.files), "a committed file was lost"
    bring_up(index, pictures)
    with open_store(index) as store:
        assert sorted(check(store)) == sorted(listed)
        named = {row[0] for row in store.link.execute("SELECT file FROM shards")}
    assert {file.name for file in (index / schema.SHARDS).iterdir()} == named


def kills(tmp_path: Path, count: int, seed: int) -> None:
    total = lines_of_a_whole_run(tmp_path / "whole")
    draw = random.Random(seed)
    for number in range(count):
        point = draw.randint(1, total)
        survive(tmp_path / f"kill-{number}-at-{point}", point)


def test_killed_at_8_random_points(tmp_path: Path) -> None:
    kills(tmp_path, 8, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_killed_at_50_random_points(tmp_path: Path, seed: int) -> None:
    kills(tmp_path, 50, seed)


def test_killed_while_the_index_is_first_made(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    fill(pictures, 2)
    for point in range(1, 60, 7):
        index = tmp_path / f"index-{point}"

        def work(index: Path = index, point: int = point) -> None:
            sys.settrace(count_lines(point))
            bring_up(index, pictures)

        assert status_of(in_a_child(work)) == -signal.SIGKILL
        bring_up(index, pictures)
        with open_store(index) as store:
            assert len(check(store)) == 2


def test_a_killed_writer_gives_the_lock_back(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 2)
    bring_up(tmp_path / "index", tmp_path / "pictures")

    def work() -> None:
        with open_store(tmp_path / "index") as store, Writer(store):
            (tmp_path / "held").touch()
            time.sleep(60)

    child = in_a_child(work)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with (
        open_store(tmp_path / "index") as store,
        pytest.raises(StoreError, match="Another process is writing"),
    ):
        Writer(store)
    os.kill(child, signal.SIGKILL)
    assert status_of(child) == -signal.SIGKILL
    with open_store(tmp_path / "index") as store, Writer(store):
        pass


def test_two_processes_read_while_one_writes(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 4)
    bring_up(index, pictures)

    def read() -> None:
        last, ended = 0, False
        while not ended:
            ended = (tmp_path / "done").exists()  # asked before the look, so the last one sees all
            with open_store(index) as store:
                snapshot = store.snapshot()
                assert not snapshot.damage, [str(each) for each in snapshot.damage]
                files = check(store)
            assert len(files) >= last, "a reader went back in time"
            last = len(files)
        assert last == 64

    readers = [in_a_child(read), in_a_child(read)]
    for round_ in range(6):
        fill(pictures, 10, start=100 + 10 * round_)
        bring_up(index, pictures, commit=2)
        with open_store(index) as store, Writer(store) as writer:
            writer.compact()
    (tmp_path / "done").touch()
    assert [status_of(reader) for reader in readers] == [0, 0]
