"""Watching a run from a terminal: progress on stderr, the answer on stdout."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

import click

from guided import studio
from guided.cli.console import STATES, fitting, line, table, terminal
from guided.core.run import Result, Run, Step
from guided.core.text import json_text, one_line
from guided.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console

_EVERY = 0.1  # seconds between two pictures of a bar
_EVERY_LINE = 10.0  # seconds between two lines where there is no terminal
_COLUMNS = 8  # most columns of an answer's table
#: Columns of answers that are sentences.
_PROSE = ("prompt", "text", "caption", "question", "answer", "error", "left_out", "reason", "title")


class Progress:
    """What a run is doing: a bar on a terminal, a line now and then elsewhere.

    The time that is left is that of the stage which the step's label names.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        console = terminal(stream)
        self._bar = None if console is None or console.is_dumb_terminal else _Bar(console)
        self._label: str | None = None
        self._began = self._shown = time.monotonic()

    def show(self, step: Step[Any]) -> None:
        """Show a step, unless the last one was just shown."""
        now = time.monotonic()
        if step.label != self._label:
            self._label, self._began = step.label, now
        if self._bar is not None:
            self._bar.show(step, fitting(step.label or "step", self._stream), _figures(step))
            return
        last = step.total is not None and step.index >= step.total
        if now - self._shown < _EVERY_LINE and not last:
            return
        self._shown = now
        self._stream.write(fitting(self._text(step, now - self._began), self._stream) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the line."""
        if self._bar is not None:
            self._bar.close()

    @staticmethod
    def _text(step: Step[Any], seconds: float) -> str:
        parts = [step.label or "step"]
        if step.total:
            share = min(step.index / step.total, 1.0)
            filled = round(20 * share)
            parts += [f"[{'#' * filled}{'.' * (20 - filled)}]", f"{step.index}/{step.total}"]
            if 0 < share < 1 and seconds > 1:
                parts.append(f"{seconds * (1 - share) / share:.0f} s left")
        else:
            parts.append(str(step.index))
        return " ".join([*parts, _figures(step)]).rstrip()


def _figures(step: Step[Any]) -> str:
    return one_line(" ".join(f"{name} {value:.4g}" for name, value in [*step.losses.items()][:4]))


class _Bar:
    """rich's bar for the stage that is running, on one line; what is logged appears above it.

    It is drawn when a step is shown: no thread, which a signal or a fork could meet halfway.
    """

    def __init__(self, console: Console) -> None:
        from rich import progress
        from rich.table import Column

        def text(field: str, style: str, **rules: Any) -> progress.TextColumn:
            return progress.TextColumn(
                field, style, markup=False, table_column=Column(no_wrap=True, **rules)
            )

        self._progress = progress.Progress(
            text("{task.description}", "bold"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(table_column=Column(no_wrap=True)),
            progress.TimeRemainingColumn(
                compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)
            ),
            text("{task.fields[figures]}", "cyan", overflow="crop"),
            console=console, auto_refresh=False, redirect_stdout=False,
        )  # fmt: skip
        self._label: str | None = None
        self._task: Any = None
        self._drawn = 0.0

    def show(self, step: Step[Any], label: str, figures: str) -> None:
        """Move the bar of a stage, or begin that of the next stage in its place."""
        known: dict[str, Any] = {"total": step.total, "figures": figures}
        if label != self._label:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(label, **known)
            self._label = label
            self._progress.start()
        self._progress.update(self._task, completed=step.index, **known)
        now = time.monotonic()
        last = step.total is not None and step.index >= step.total
        if last or now - self._drawn >= _EVERY:
            self._drawn = now
            self._progress.refresh()

    def close(self) -> None:
        """Leave the last stage's line, with the cursor below it."""
        self._progress.stop()


class _Logs(logging.Handler):
    """Log records as lines on what stderr is at that time (above a bar, where one is drawn)."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        line(f": {record.getMessage()}", STATES.get(level, ""), head=level, err=True)


def speak_logs() -> None:
    """Show warnings of the library on stderr."""
    logger = logging.getLogger("guided")
    logger.handlers[:] = [_Logs()]
    logger.setLevel(logging.WARNING)
    logger.propagate = False


def watch(recipe: Recipe, *, as_json: bool, quiet: bool) -> int:
    """Run a recipe, show it, print its answer; returns the exit status."""
    speak_logs()
    return follow(studio.run(recipe), as_json=as_json, quiet=quiet)


def follow(run: Run[Result], *, as_json: bool, quiet: bool) -> int:
    """Show a started run and print its answer; 1 if a file failed or an expectation was missed."""
    progress = None if quiet else Progress(sys.stderr)
    try:
        for step in run:
            if progress is not None:
                progress.show(step)
    finally:
        if progress is not None:
            progress.close()
    result = run.result()
    say(result.answer, as_json=as_json)
    if result.folder is not None and not as_json:
        line(str(result.folder), "green", head="saved in ", err=True)
    for error in result.answer.get("errors") or ():
        if isinstance(error, Mapping):
            line(f" {_failure(error)}", "bold red", head="guided:", err=True)
    for missed in result.failed_expectations:
        line(f" expectation not met: {missed}", "bold red", head="guided:", err=True)
    return 1 if result.answer.get("errors") or result.failed_expectations else 0


def _failure(error: Mapping[str, Any]) -> str:
    """A file and what is wrong with it, the file's name once."""
    file, reason = str(error.get("file")), str(error.get("error"))
    return reason if reason.startswith(file) else f"{file}: {reason}"


def say(answer: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an answer: one JSON object, or lines for people."""
    if as_json:
        click.echo(json_text(answer).encode())
        return
    for key, value in answer.items():
        lines = list(lines_of({key: value}))
        rows = _rows(value)
        if rows:
            table(rows, lines, prose=_PROSE, numbers=_numbers(value))
            continue
        for each in lines:
            line(each)


def _rows(value: Any) -> list[dict[str, str]]:
    """Entries as rows of a table, where each is a few plain values of the same names."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(e, Mapping) for e in value):
        return []
    rows = [row for entry in value if (row := _flat(entry)) is not None]
    fits = rows and len(rows) == len(value) and all(row.keys() == rows[0].keys() for row in rows)
    return [{k: _short(v) for k, v in row.items()} for row in rows] if fits else []


def _flat(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """An entry with its mappings of numbers spread out; None if it holds more than plain values."""
    row: dict[str, Any] = {}
    for key, value in entry.items():
        row.update(value if isinstance(value, Mapping) else {key: value})
    plain = all(isinstance(value, (str, int, float, type(None))) for value in row.values())
    return row if plain and len(row) <= _COLUMNS else None


def _numbers(value: Any) -> list[str]:
    first = _flat(value[0]) or {}
    return [key for key, each in first.items() if isinstance(each, (int, float))]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(item) for item in value) or "none"
    return "-" if value is None else str(value)


def lines_of(answer: Mapping[str, Any]) -> Iterator[str]:
    """An answer as lines: a block for each entry of a list of tables, a line for the rest."""
    for key, value in answer.items():
        if key == "errors":
            continue
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            for entry in value:
                if entry.keys() == {"file", "reason"}:
                    yield f"{key.replace('_', ' ')}: {entry['file']}: {entry['reason']}"
                else:
                    yield from _block(entry)
        else:
            yield f"{key}: {_short(value)}"


def _block(entry: Mapping[str, Any]) -> Iterator[str]:
    """One entry: its first value as a title, the others below it."""
    items = list(entry.items())
    yield _short(items[0][1]) if items else ""
    for key, value in items[1:]:
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            yield f"  {key}:"
            for item in value:
                yield f"    {_short(item)}"
        elif value is not None:
            yield f"  {key}: {_short(value)}"
