"""Runs: iterate, stop, ask for the result; failures and threads."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from PIL import Image

from guided.core.run import OutputImage, Result, Run, Step
from guided.errors import GuidedError


def counting(count: int, log: list[str] | None = None) -> Generator[Step[str], None, int]:
    try:
        for i in range(1, count + 1):
            yield Step(i, count, "count", {"loss": 1 / i}, draft=f"draft {i}")
    finally:
        if log is not None:
            log.append("closed")
    return count * 10


def test_steps_then_the_result() -> None:
    run = Run(counting(3))
    assert [step.index for step in run] == [1, 2, 3]
    assert run.result() == 30
    assert run.result() == 30
    assert list(run) == []


def test_the_result_alone_runs_everything() -> None:
    assert Run(counting(4)).result() == 40


def test_iterating_may_pause_and_go_on() -> None:
    run = Run(counting(5))
    for step in run:
        if step.index == 2:
            break
    assert [step.index for step in run] == [3, 4, 5]
    assert run.result() == 50


def test_finish_sees_all_steps_once_without_their_drafts() -> None:
    calls: list[list[Step[Any]]] = []

    def finish(result: int, seen: Sequence[Step[Any]]) -> int:
        calls.append(list(seen))
        return result + 1

    run = Run(counting(3), finish)
    next(iter(run))
    assert run.result() == 31
    assert run.result() == 31
    assert len(calls) == 1
    assert [step.index for step in calls[0]] == [1, 2, 3]
    assert [step.losses["loss"] for step in calls[0]] == [1, 1 / 2, 1 / 3]
    assert all(step.draft is None for step in calls[0])


def test_a_stopped_run_has_no_result_and_is_not_finished() -> None:
    log: list[str] = []
    finished: list[int] = []
    run = Run(counting(5, log), lambda result, seen: finished.append(1) or result)
    seen = []
    for step in run:
        seen.append(step.index)
        if step.index == 2:
            run.stop()
    assert seen == [1, 2]
    assert log == ["closed"]
    with pytest.raises(GuidedError, match="was stopped before its end, so it has no result"):
        run.result()
    assert finished == []
    run.stop()


def test_stopping_before_the_first_step() -> None:
    run = Run(counting(5))
    run.stop()
    assert list(run) == []


def test_a_result_stays_after_a_late_stop() -> None:
    run = Run(counting(2))
    assert run.result() == 20
    run.stop()
    assert run.result() == 20


def failing() -> Generator[Step[None], None, int]:
    yield Step(1)
    raise ValueError("in the middle")


def test_a_failed_run_has_no_result_and_is_not_finished() -> None:
    finished: list[int] = []
    run = Run(failing(), lambda result, seen: finished.append(1) or result)
    with pytest.raises(ValueError, match="in the middle"):
        list(run)
    with pytest.raises(GuidedError, match="failed before its end, so it has no result"):
        run.result()
    assert finished == []
    assert list(run) == []


def test_a_finish_that_fails_is_not_repeated() -> None:
    calls: list[int] = []

    def finish(result: int, seen: Sequence[Step[Any]]) -> int:
        calls.append(result)
        raise OSError("disk full")

    run = Run(counting(1), finish)
    with pytest.raises(OSError, match="disk full"):
        run.result()
    with pytest.raises(GuidedError, match="failed before its end"):
        run.result()
    assert calls == [10]


def test_another_thread_may_stop_a_step_that_runs() -> None:
    inside, go = threading.Event(), threading.Event()
    log: list[str] = []

    def slow() -> Generator[Step[None], None, int]:
        try:
            for i in range(1, 100):
                inside.set()
                go.wait(5)
                yield Step(i)
        finally:
            log.append("closed")
        return 1

    run = Run(slow())
    seen: list[int] = []
    worker = threading.Thread(target=lambda: seen.extend(step.index for step in run))
    worker.start()
    assert inside.wait(5)
    run.stop()
    go.set()
    worker.join(5)
    assert not worker.is_alive()
    assert seen == []
    assert log == ["closed"]


def test_results_show_their_images() -> None:
    image = Image.new("RGB", (2, 2))
    result = Result({"a": 1}, [OutputImage("x.png", image, ("parent.png",), {"strength": 1})])
    assert result.images == [image]
    assert result.pictures[0].note == {"strength": 1}
