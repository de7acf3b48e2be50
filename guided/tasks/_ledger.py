"""What a batch verb has finished: saved as it is made, and gone on with after an interruption.

In a saved run every batch is written when it is done: its files, its images with recipe and
lineage, then its lines in ``results.jsonl``.  The same recipe in the same folder goes on from
there, with the same batches, so that it gives what an uninterrupted run gives; another recipe has
lines of its own, and nothing is mixed.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided.core import unfinished
from guided.core.finite import check_answer
from guided.core.journal import Journal, differing
from guided.core.run import OutputImage
from guided.core.seeds import read_seed
from guided.tasks.base import TaskContext

LINES = "results.jsonl"
#: Keys of a recipe that say nothing about what is made.
_BESIDE = frozenset({"about", "expect", "force", "online", "out"})


@dataclass
class Ledger:
    """The finished rows of a run, by their names in the order of work.

    Without a run folder it only counts, and images stay in memory.
    """

    ctx: TaskContext
    total: int
    done: int = 0
    _journal: Journal | None = None
    _files: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, ctx: TaskContext, total: int) -> Ledger:
        """The ledger of a run that makes ``total`` rows, its models loaded.

        Raises:
            OutputError: the run's folder cannot be written.
        """
        folder = ctx.folder if ctx.keep is not None else None
        if folder is None:
            return cls(ctx, total)
        identity = _identity(ctx)
        lines = _lines_of(folder, identity)
        journal = Journal(folder, identity, lines=lines, key="row", afresh=ctx.force)
        ledger = cls(ctx, total, _journal=journal)
        ledger._note()
        return ledger

    @property
    def files(self) -> dict[str, str | bytes]:
        """Files that are not saved yet, for the Result of a run without a folder."""
        return dict(self._files)

    def finished(
        self, rows: Sequence[str], sources: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]] | None:
        """The entries of a batch that an earlier run finished; None where it is to be made.

        ``sources`` are digests of what each row is made from: a changed file is a row to make.
        """
        if self._journal is None:
            return None
        lines = [self._journal.done.get(row) for row in rows]
        entries = []
        for row, line in zip(rows, lines, strict=True):
            if line is None or line.get("source") != (sources or {}).get(row):
                return None
            entry = self._opened(line)
            if entry is None:
                return None
            entries.append(entry)
        self._count(len(rows))
        return entries

    def further(self, row: str) -> dict[str, Any]:
        """What ``add`` was given beside a finished row's entry."""
        line = self._journal.done.get(row, {}) if self._journal is not None else {}
        data = line.get("further")
        return data if isinstance(data, dict) else {}

    def add(
        self,
        rows: Sequence[str],
        entries: Sequence[dict[str, Any]],
        *,
        sources: Mapping[str, str] | None = None,
        further: Sequence[dict[str, Any]] = (),
    ) -> list[dict[str, Any]]:
        """Finish a batch: its images are saved, then its rows; returns the entries to answer with.

        ``further`` is plain data that a resumed run needs of each row.

        Raises:
            OutputError: an image or the rows cannot be written; what was finished is kept.
        """
        saved, lines = [], []
        for number, (row, entry) in enumerate(zip(rows, entries, strict=True)):
            held = {
                key: self.ctx.saved(value) if isinstance(value, OutputImage) else value
                for key, value in entry.items()
            }
            saved.append(held)
            if self._journal is not None:
                line = self._line(row, held, (sources or {}).get(row))
                lines.append({**line, "further": further[number]} if further else line)
        if self._journal is not None:
            self._journal.add(lines)
        self._count(len(rows))
        return saved

    def write(self, name: str, data: bytes) -> str:
        """Save a file that belongs to a row; returns its path, or its name without a folder."""
        if self._journal is not None and self.ctx.store is not None:
            return str(self.ctx.store(name, data))
        self._files[name] = data
        folder = self.ctx.folder
        return str(folder / name) if folder is not None else name

    def _line(self, row: str, entry: dict[str, Any], source: str | None) -> dict[str, Any]:
        """A finished row as plain data: paths of its files are relative to the run's folder."""
        root = self._root()
        plain = {
            key: value.path.relative_to(root).as_posix()
            for key, value in entry.items()
            if isinstance(value, OutputImage) and value.path is not None
        }
        files = {
            key: Path(value).relative_to(root).as_posix()
            for key, value in entry.items()
            if isinstance(value, str) and key in ("latent", "animation")
        }
        line: dict[str, Any] = {"row": row, "entry": {**entry, **plain, **files}}
        check_answer({row: line["entry"]})
        line |= {
            "images": {key: source_of(root / name) for key, name in plain.items()},
            "files": {key: source_of(root / name) for key, name in files.items()},
        }
        return line if source is None else {**line, "source": source}

    def _opened(self, line: Mapping[str, Any]) -> dict[str, Any] | None:
        """The entry of a row's line; None where a file of it is gone or another by now."""
        entry, root = dict(line["entry"]), self._root()
        entry |= {key: read_seed(entry[key]) for key in ("seed", "drawn_from") if key in entry}
        for kind in ("images", "files"):
            for key, digest in line[kind].items():
                path = root / entry[key]
                if source_of(path) != digest:
                    return None
                held = OutputImage(entry[key], None, path=path) if kind == "images" else str(path)
                entry[key] = held
        return entry

    def _root(self) -> Path:
        assert self._journal is not None
        return self._journal.folder.resolve()

    def _count(self, rows: int) -> None:
        self.done += rows
        self._note()

    def _note(self) -> None:
        note_rows(self.ctx, self.done, self.total)


def note_rows(ctx: TaskContext, done: int, total: int) -> None:
    """Note how many rows of a saved run are finished, for whoever interrupts it."""
    if ctx.folder is None:
        return
    how = "the same command" if ctx.out_given else f"the same command with --out {ctx.folder}"
    unfinished.note(f"{done} of {total} done are in {ctx.folder}; {how} goes on")


def _lines_of(folder: Path, identity: Mapping[str, Any]) -> str:
    """The name of the journal of this recipe in a folder, which may hold those of others too."""
    for number in itertools.count(1):
        path = folder / (LINES if number == 1 else LINES.replace(".", f"-{number}."))
        if not differing(path, identity):
            return path.name
    raise AssertionError("there is always a free number")


def source_of(*files: str | Path | None) -> str:
    """A digest of the content of files, by which a file that was changed is known."""
    digest = hashlib.sha256()
    for file in files:
        if file is not None and str(file) and Path(file).is_file():
            digest.update(Path(file).read_bytes())
        digest.update(b"|")
    return digest.hexdigest()[:16]


def distinct(names: Sequence[str]) -> list[str]:
    """The names in their order, those that came before with a number: a, a-2, a-3."""
    free: dict[str, None] = {}
    for name in names:
        number, each = 1, name
        while each in free:
            number += 1
            each = f"{name}-{number}"
        free[each] = None
    return list(free)


def _identity(ctx: TaskContext) -> dict[str, Any]:
    """What decides the bits of a run: its recipe, its models, its device and threads."""
    import torch

    recipe = {key: value for key, value in ctx.recipe.items() if key not in _BESIDE}
    return {
        **recipe,
        "device": ctx.device.name,
        "models": dict(ctx.notes),
        "threads": torch.get_num_threads(),
    }
