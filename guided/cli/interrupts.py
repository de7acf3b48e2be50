"""Ctrl-C and SIGTERM: a command ends within two seconds, with one line and nothing half-written.

The first signal raises ``Interrupted`` in the main thread, so that files are closed, workers
ended and checkpoints written; a thread that the signal wakes ends the process where this takes too
long (a library's import, one long operation, a download that waits).  A second signal ends it at
once.  Only light modules are imported here, so that it holds from the first line on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from guided.core import unfinished
from guided.core.unfinished import Interrupted

#: Seconds after the first signal at which the process is ended.
GRACE = 1.3
#: Seconds within which two signals are one: some programs signal a process and then its group.
_SAME = 0.1


class Interrupts:
    """Within ``with``, SIGINT and SIGTERM interrupt the command.

    ``leaves``: an interrupted process ends in ``told``, without waiting for its threads.
    In a thread that is not the main one nothing is changed.
    """

    def __init__(self, *, leaves: bool) -> None:
        self._raised = False
        self._leaves = leaves
        self._before: dict[int, Any] = {}
        self._once = threading.Lock()

    @property
    def number(self) -> int:
        """The first signal that came, or 0."""
        return unfinished.signal_number()

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        unfinished.begin(watched=main)
        if not main:
            return self
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._raise)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unfinished.end()
        if not self._before:
            return
        self._once.acquire(blocking=False)  # from here on the watching thread ends nothing
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        signal.set_wakeup_fd(self._wakeup)
        sys.unraisablehook = self._hook
        self._theirs.close()

    def told(self) -> int:
        """Say the one line on what is kept; returns the exit status, or ends the process."""
        number = self.number or signal.SIGINT
        if not self._once.acquire(blocking=False):  # it is being told: this process ends now
            time.sleep(GRACE)
        self._say()
        if self._leaves:
            self._leave(number)
        return 128 + number

    def _raise(self, number: int, frame: FrameType | None) -> None:
        unfinished.signalled(number)
        if not self._raised:
            self._raised = True
            raise Interrupted

    def _unraisable(self, fault: Any) -> None:
        """An interruption that reached a place from where nothing can be raised is no news."""
        if not self.number:
            self._hook(fault)

    def _watch(self) -> None:
        """Wait for signals: end the process at the second, or some time after the first."""
        wanted = {signal.SIGINT, signal.SIGTERM}
        began = end = 0.0
        while True:
            self._ours.settimeout(max(0.001, end - time.monotonic()) if end else None)
            try:
                signals = self._ours.recv(64)
            except TimeoutError:
                signals = b""
            else:
                if not signals:  # the other end is closed
                    break
            caught = [number for number in signals if number in wanted]
            now = time.monotonic()
            if caught and not end:
                unfinished.signalled(caught[0])
                began, end = now, now + GRACE
            elif end and (now >= end or (caught and now > began + _SAME)):
                if self._once.acquire(blocking=False):
                    self._say(forced=True)
                    self._leave(self.number)
                break
        self._ours.close()

    def _say(self, *, forced: bool = False) -> None:
        from guided.core.text import one_line

        line = unfinished.line()
        message = f"guided: interrupted{'; ' if line else ''}{line}"
        with contextlib.suppress(OSError, ValueError):
            below = "\n" if forced and sys.stderr.isatty() else ""  # a bar may be drawn there
            sys.stderr.write(f"{below}{one_line(message)}\n")
            sys.stderr.flush()

    def _leave(self, number: int) -> None:
        unfinished.sweep()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + number)
