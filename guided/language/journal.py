"""A record of captions that survives being killed: lines are added, whole batches at a time."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guided.core.files import write_bytes
from guided.errors import OutputError

LINES, TABLE, STATE = "captions.jsonl", "captions.csv", "captions.state.json"
_COLUMNS = ("file", "rank", "text", "clip", "language", "total", "error")


class Journal:
    """The lines of finished files in ``captions.jsonl`` of a folder, and the settings they had.

    Each ``add`` writes all its lines at once and waits until the disk has them; a line that was
    cut off by a crash is dropped when the journal is opened again.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._path = folder / LINES
        folder.mkdir(parents=True, exist_ok=True)
        self._agree(settings)
        self.done = self._read()

    def _agree(self, settings: Mapping[str, Any]) -> None:
        """Accept a folder that holds captions of the same settings, or none."""
        path = self.folder / STATE
        given = json.loads(json.dumps(settings))
        if path.is_file():
            kept = _parsed(path.read_bytes())
            if kept != given:
                known = kept if isinstance(kept, dict) else {}
                changed = sorted(
                    key for key in {*known, *given} if known.get(key) != given.get(key)
                )
                raise OutputError(
                    f"The folder {self.folder} holds captions made with other settings "
                    f"({', '.join(changed)}).",
                    hint="Name another folder with --out, or delete that one.",
                )
        elif self._path.exists():
            raise OutputError(
                f"The folder {self.folder} has a {LINES} that this did not begin.",
                hint="Name another folder with --out.",
            )
        else:
            write_bytes(path, json.dumps(given, indent=2).encode())

    def _read(self) -> dict[str, dict[str, Any]]:
        """The finished files by path, after cutting off what a crash left of a line."""
        done: dict[str, dict[str, Any]] = {}
        if not self._path.is_file():
            return done
        sound = 0
        with self._path.open("rb") as file:
            for line in file:
                row = _parsed(line) if line.endswith(b"\n") else None
                if not isinstance(row, dict) or not isinstance(row.get("file"), str):
                    break
                done[row["file"]] = row
                sound += len(line)
        if sound < self._path.stat().st_size:
            with self._path.open("r+b") as file:
                file.truncate(sound)
        return done

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, each with a ``file``.

        Raises:
            OutputError: the disk does not take them; what was there before is kept.
        """
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        before = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("ab") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if self._path.exists():
                os.truncate(self._path, before)
            raise OutputError(f"{self._path} cannot be written: {error.strerror}.") from error
        self.done.update((str(row["file"]), dict(row)) for row in rows)


def as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as JSON, one a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV: one line for each caption of each file, the best first, or its error."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if "error" in row:
            writer.writerow({"file": row["file"], "error": row["error"]})
        for rank, caption in enumerate(row.get("captions", ()), start=1):
            writer.writerow({"file": row["file"], "rank": rank, **caption})
    return text.getvalue()


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
