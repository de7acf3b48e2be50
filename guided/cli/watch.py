"""Watching a run from a terminal: progress on stderr, the answer on stdout."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

import click

from guided import studio
from guided.core.run import Result, Run, Step
from guided.recipe import Recipe

_EVERY = 0.1  # seconds between two pictures of a bar
_EVERY_LINE = 10.0  # seconds between two lines where there is no terminal


class Progress:
    """One line on what a run is doing: redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self, stream: IO[str], *, live: bool) -> None:
        self._stream = stream
        self._live = live
        self._began = time.monotonic()
        self._shown = self._began if not live else 0.0
        self._width = 0

    def show(self, step: Step[Any]) -> None:
        """Show a step, unless the last one was just shown."""
        now = time.monotonic()
        last = step.total is not None and step.index >= step.total
        if now - self._shown < (_EVERY if self._live else _EVERY_LINE) and not last:
            return
        self._shown = now
        text = self._text(step, now - self._began)
        if self._live:
            self._stream.write("\r" + text.ljust(self._width)[: _columns()])
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the line."""
        if self._live and self._width:
            self._stream.write("\n")
            self._stream.flush()

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
        parts += [f"{name} {value:.4g}" for name, value in list(step.losses.items())[:4]]
        return " ".join(parts)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns - 1


class _LogLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


def speak_logs() -> None:
    """Show warnings of the library on stderr."""
    logger = logging.getLogger("guided")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLine())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING)
    logger.propagate = False


def watch(recipe: Recipe, *, as_json: bool, quiet: bool) -> int:
    """Run a recipe, show it, print its answer; returns the exit status."""
    speak_logs()
    return follow(studio.run(recipe), as_json=as_json, quiet=quiet)


def follow(run: Run[Result], *, as_json: bool, quiet: bool) -> int:
    """Show a started run and print its answer; 1 if a file failed or an expectation was missed."""
    stream = sys.stderr
    progress = None if quiet else Progress(stream, live=stream.isatty())
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
        click.echo(f"saved in {result.folder}", err=True)
    for error in result.answer.get("errors") or ():
        if isinstance(error, Mapping):
            click.echo(f"guided: {error.get('file')}: {error.get('error')}", err=True)
    for line in result.unmet:
        click.echo(f"guided: expectation not met: {line}", err=True)
    return 1 if result.answer.get("errors") or result.unmet else 0


def say(answer: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an answer: one JSON object, or lines for people."""
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False, allow_nan=False))
        return
    for line in lines_of(answer):
        click.echo(line)


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
        else:
            yield f"  {key}: {_short(value)}"
