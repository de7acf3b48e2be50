"""Files that were checked and found sound are not checked again while they stay as they were."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

#: Seconds that a file must have been left alone: a change as recent as its check could bear the
#: same time as what was checked.
SETTLED = 0.2
#: Files that are remembered at most.
MOST = 4096

_State = tuple[str, int, int, int, int, int]


def accepted_once(check: Callable[[Path], None]) -> Callable[[Path], None]:
    """A check of a file that passes what it passed before, unless the file was written since.

    One file is looked at from several sides (a verb's options, a loader, a limit on memory), and
    its check can take longer than its loading.  What was refused is read and refused again.
    """
    known: set[_State] = set()

    @wraps(check)
    def checked(path: Path) -> None:
        state = _state(path)
        if state is not None and state in known:
            return
        check(path)
        if state is not None and state == _state(path):
            if len(known) >= MOST:
                known.clear()
            known.add(state)

    return checked


def _state(path: Path) -> _State | None:
    """Which file it is and when it was last written; None while that is too recent to tell."""
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time() - max(found.st_mtime, found.st_ctime) < SETTLED:
        return None
    # The time of the change of a file's state cannot be set by its writer, unlike that of its data.
    return (
        str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )  # fmt: skip
