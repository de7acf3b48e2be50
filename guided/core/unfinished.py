"""What is kept of the present run and what is half-written, for whoever ends its process.

A process runs one command at a time: the line that an interruption shows, the signal that came
and the files that are being written are noted here, and ``guided.cli.interrupts`` reads them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM during a command; not KeyboardInterrupt, which click answers itself."""


@dataclass
class _Command:
    """The command that runs now."""

    line: str = ""
    signal: int = 0
    watched: bool = False
    files: set[Path] = field(default_factory=set)


_command = _Command()


def begin(*, watched: bool) -> None:
    """A new command begins; ``watched``: signals end it with ``Interrupted``."""
    _command.line, _command.signal, _command.watched = "", 0, watched
    _command.files.clear()


def end() -> None:
    """The command is over: a signal that another part of the process notes later ends nothing."""
    _command.watched = False


def note(line: str) -> None:
    """Set what is kept so far and how to go on: '3 of 8 images are in FOLDER; ...'."""
    _command.line = line


def line() -> str:
    """What was noted last, or nothing."""
    return _command.line


def signalled(number: int) -> None:
    """Note the first signal that came."""
    _command.signal = _command.signal or number


def signal_number() -> int:
    """The first signal that came, or 0."""
    return _command.signal


def check() -> None:
    """End a command here whose signal was only noted, so that a checkpoint could be written.

    Raises:
        Interrupted: a signal came during a command.
    """
    if _command.watched and _command.signal:
        raise Interrupted


def writing(path: Path) -> None:
    """A file that is half-written from now on."""
    _command.files.add(path)


def written(path: Path) -> None:
    """A file that is whole now, or gone."""
    _command.files.discard(path)


def sweep() -> None:
    """Delete the files that are half-written."""
    for path in tuple(_command.files):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
