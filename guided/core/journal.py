"""A record of finished rows that survives being killed: whole batches are added, to go on after.

Every verb that makes many things has one in its run folder.  Beside the lines lie the settings
they were made with, so that what another recipe made is never mixed with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guided.core.files import make_folder, output_error, write_bytes
from guided.core.reading import LONGEST_LINE, RECORD, parse_json, read_bytes
from guided.core.text import json_text
from guided.errors import OutputError

_MOST_NAMED = 6


class Journal:
    """The lines of finished rows in the file ``lines`` of a folder, and the settings they had.

    A row is plain data with a text under ``key`` that names it; ``done`` has the last of each name.
    Each ``add`` writes all its lines at once and waits until the disk has them; a line that was
    cut off by a crash is dropped when the journal is opened again.  ``afresh`` forgets what an
    earlier run wrote.

    Raises:
        OutputError: the folder holds rows of other settings, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        lines: str,
        key: str = "file",
        afresh: bool = False,
    ) -> None:
        self.folder = make_folder(folder)
        self._path = folder / lines
        self._key = key
        try:
            if afresh:
                self._path.unlink(missing_ok=True)
                _state_of(self._path).unlink(missing_ok=True)
            self._agree(settings)
            self.done = self._read()
        except OSError as error:
            raise output_error(self._path, error) from error

    def _agree(self, settings: Mapping[str, Any]) -> None:
        """Accept a folder that holds rows of the same settings, or none."""
        changed = differing(self._path, settings)
        if changed is None:
            given = json_text(settings, indent=2, allow_nan=True)
            write_bytes(_state_of(self._path), f"{given}\n".encode())
        elif changed:
            named = ", ".join(changed[:_MOST_NAMED])
            raise OutputError(
                f"The folder {self.folder} holds results made with other settings "
                f"({named}{', ...' if len(changed) > _MOST_NAMED else ''}).",
                hint="Name another folder with --out, or give the settings that are in "
                f"{_state_of(self._path).name} there to go on with them.",
            )

    def _read(self) -> dict[str, dict[str, Any]]:
        """The finished rows by name, after cutting off what a crash left of a line."""
        done: dict[str, dict[str, Any]] = {}
        if not self._path.is_file():
            return done
        sound = 0
        with self._path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                row = _parsed(line) if line.endswith(b"\n") else None
                if not isinstance(row, dict) or not isinstance(row.get(self._key), str):
                    break
                done[row[self._key]] = row
                sound += len(line)
        if sound < self._path.stat().st_size:
            with self._path.open("r+b") as file:
                file.truncate(sound)
        return done

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, each with its name under the key.

        Raises:
            OutputError: the disk does not take them; what was there before is kept.
        """
        text = as_lines(rows).encode()
        try:
            before = self._path.stat().st_size if self._path.exists() else 0
            try:
                with self._path.open("ab") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:  # an interruption too
                if self._path.exists():
                    os.truncate(self._path, before)
                raise
        except OSError as error:
            raise output_error(self._path, error) from error
        self.done.update((str(row[self._key]), dict(row)) for row in rows)


def differing(path: Path, settings: Mapping[str, Any]) -> list[str] | None:
    """The settings in which the journal at ``path`` was made otherwise; None where there is none.

    Raises:
        OutputError: lines without settings: somebody else's file.
    """
    state = _state_of(path)
    if not state.is_file():
        if path.exists():
            raise OutputError(
                f"The folder {path.parent} has a {path.name} that this did not begin.",
                hint="Name another folder with --out.",
            )
        return None
    given, read = json.loads(json_text(settings, allow_nan=True)), _parsed(_bytes(state))
    before = read if isinstance(read, dict) else {}
    return sorted(key for key in {*before, *given} if before.get(key) != given.get(key))


def _state_of(path: Path) -> Path:
    return path.with_suffix(".state.json")


def as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as JSON, one a line."""
    return "".join(json_text(row) + "\n" for row in rows)


def _bytes(state: Path) -> bytes:
    try:
        return read_bytes(state)
    except ValueError:
        return b""


def _parsed(text: bytes) -> Any:
    try:
        return parse_json(text, **RECORD)
    except ValueError:
        return None
