"""Changes to an index: the one writer, its commits, tombstones and compaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.core.text import json_text, stored
from guided.errors import StoreError
from guided.retrieval import schema
from guided.retrieval.shards import Shard, delete_orphans, read_shard, write_shard
from guided.retrieval.store import Store

_SHARD_ROWS = 65536


@dataclass(frozen=True, eq=False)
class Entry:
    """A picture file as it was seen: size in bytes, mtime in ns, sha256 of its content."""

    file: str
    size: int
    mtime: int
    digest: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Writer:
    """The right to change a store.  Use it as a context; leaving it gives the right back."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = schema.lock(store.folder)
        with self.transaction() as link:
            used = {row[0] for row in link.execute("SELECT file FROM shards")}
        delete_orphans(store.shards, used)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One commit: all of it or none of it.

        Raises:
            StoreError: the database cannot be written.
        """
        link = self.store.link
        try:
            link.execute("BEGIN IMMEDIATE")
            try:
                yield link
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk may have ended it already
                    link.execute("ROLLBACK")
                raise
            link.execute("COMMIT")
        except sqlite3.Error as error:
            raise schema.failure(self.store.folder, error, "written") from error

    def add(self, entries: Sequence[Entry], vectors: Tensor) -> None:
        """Commit new or changed files with their vectors [n, width].

        A file that was in the index is replaced.
        """
        if not entries:
            return
        number = self._next_shard()
        shard = write_shard(self.store.shards, number, vectors)
        with self.transaction() as link:
            _insert_shard(link, shard)
            for row, entry in enumerate(entries):
                _insert(link, entry, shard.number, row)
            _note(link, added=len(entries), removed=0)

    def reuse(self, pairs: Sequence[tuple[Entry, tuple[int, int]]]) -> None:
        """Commit files whose content is already in the index, by the (shard, row) of its vector."""
        if not pairs:
            return
        with self.transaction() as link:
            for entry, (shard, row) in pairs:
                _insert(link, entry, shard, row)
            _note(link, added=len(pairs), removed=0)

    def vector_of(self, digest: str, unsound: Iterable[int] = ()) -> tuple[int, int] | None:
        """The (shard, row) that holds the vector of this content, outside the unsound shards."""
        found = self.store.link.execute(
            "SELECT shard, row FROM items WHERE digest = ? ORDER BY dead, id", (digest,)
        ).fetchall()
        bad = set(unsound)
        return next(((shard, row) for shard, row in found if shard not in bad), None)

    def touch(self, entries: Iterable[Entry]) -> None:
        """Commit new sizes, times and metadata of files whose content is the same."""
        with self.transaction() as link:
            link.executemany(
                "UPDATE items SET size = ?, mtime = ?, metadata = ? WHERE file = ? AND dead = 0",
                [(e.size, e.mtime, _json(e.metadata), stored(e.file)) for e in entries],
            )

    def remove(self, files: Sequence[str]) -> None:
        """Commit tombstones for these files."""
        if not files:
            return
        with self.transaction() as link:
            keys = [(stored(file),) for file in files]
            link.executemany("UPDATE items SET dead = 1 WHERE file = ? AND dead = 0", keys)
            link.executemany("DELETE FROM unreadable WHERE file = ?", keys)
            _note(link, added=0, removed=len(files))

    def refuse(self, reasons: Mapping[Entry, str] | Sequence[tuple[Entry, str]]) -> None:
        """Commit that these files cannot be read, so that they are not tried again unchanged."""
        pairs = list(reasons.items() if isinstance(reasons, Mapping) else reasons)
        if not pairs:
            return
        with self.transaction() as link:
            for entry, reason in pairs:
                file = stored(entry.file)
                link.execute("UPDATE items SET dead = 1 WHERE file = ? AND dead = 0", (file,))
                link.execute(
                    "INSERT OR REPLACE INTO unreadable VALUES (?, ?, ?, ?)",
                    (file, entry.size, entry.mtime, stored(reason)),
                )

    def wasteful(self) -> bool:
        """True where a compaction is worth it: a third of the rows dead, or very many shards."""
        link = self.store.link
        rows, files = link.execute("SELECT coalesce(sum(rows), 0), count(*) FROM shards").fetchone()
        used = link.execute(
            "SELECT count(*) FROM (SELECT DISTINCT shard, row FROM items WHERE dead = 0)"
        ).fetchone()[0]
        small = files > 64 and rows / files < _SHARD_ROWS / 4
        return bool(rows - used > max(1024, rows / 3) or small)

    def compact(self) -> int:
        """Rewrite the vectors in use into few shards and forget the tombstones.

        Readers of the old commit look again when its files are gone.  Returns the rows dropped.

        Raises:
            StoreError: a shard in use is damaged (index its pictures again first).
        """
        link = self.store.link
        before = link.execute("SELECT coalesce(sum(rows), 0) FROM shards").fetchone()[0]
        live = link.execute(
            "SELECT DISTINCT shard, row FROM items WHERE dead = 0 ORDER BY shard, row"
        ).fetchall()
        first = self._next_shard()
        written: list[Shard] = []
        moves: list[tuple[int, int, int, int]] = []
        for start in range(0, len(live), _SHARD_ROWS):
            part = live[start : start + _SHARD_ROWS]
            shard = write_shard(self.store.shards, first + len(written), self._vectors(part))
            moves.extend((shard.number, i, old, row) for i, (old, row) in enumerate(part))
            written.append(shard)
        with self.transaction():
            link.execute("DELETE FROM items WHERE dead = 1")
            for shard in written:
                _insert_shard(link, shard)
            link.execute("CREATE TEMP TABLE moves (shard, row, old_shard, old_row)")
            link.execute("CREATE INDEX temp.old ON moves (old_shard, old_row)")
            link.executemany("INSERT INTO temp.moves VALUES (?, ?, ?, ?)", moves)
            link.execute(
                "UPDATE items SET (shard, row) = (SELECT m.shard, m.row FROM temp.moves m "
                "WHERE m.old_shard = items.shard AND m.old_row = items.row)"
            )
            link.execute("DROP TABLE temp.moves")
            link.execute("DELETE FROM shards WHERE id < ?", (first,))
        delete_orphans(self.store.shards, {shard.file for shard in written})
        return int(before) - len(live)

    def _vectors(self, places: Sequence[tuple[int, int]]) -> Tensor:
        """The vectors [n, width] at (shard, row) pairs in ascending order."""
        link = self.store.link
        parts = []
        for number in dict.fromkeys(shard for shard, _ in places):
            row = link.execute(
                "SELECT id, file, rows, sha256 FROM shards WHERE id = ?", (number,)
            ).fetchone()
            shard = Shard(*row)
            found: Tensor | str
            try:
                found = read_shard(self.store.shards, shard, self.store.width)
            except FileNotFoundError:
                found = "the file is gone"
            if isinstance(found, str):
                raise StoreError(
                    f"The shard {shard.file} of the index {self.store.folder} is damaged: {found}.",
                    hint="Run guided index on its pictures; that replaces what is damaged.",
                )
            parts.append(found[torch.tensor([r for s, r in places if s == number])])
        return torch.cat(parts)

    def _next_shard(self) -> int:
        row = self.store.link.execute("SELECT coalesce(max(id), 0) FROM shards").fetchone()
        return int(row[0]) + 1


def _insert_shard(link: sqlite3.Connection, shard: Shard) -> None:
    values = (shard.number, shard.file, shard.rows, shard.sha256)
    link.execute("INSERT INTO shards VALUES (?, ?, ?, ?)", values)


def _insert(link: sqlite3.Connection, entry: Entry, shard: int, row: int) -> None:
    file = stored(entry.file)
    link.execute("UPDATE items SET dead = 1 WHERE file = ? AND dead = 0", (file,))
    link.execute("DELETE FROM unreadable WHERE file = ?", (file,))
    link.execute(
        "INSERT INTO items (file, size, mtime, digest, shard, row, metadata) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (file, entry.size, entry.mtime, entry.digest, shard, row, _json(entry.metadata)),
    )


def _note(link: sqlite3.Connection, *, added: int, removed: int) -> None:
    link.execute("INSERT INTO commits (added, removed) VALUES (?, ?)", (added, removed))


def _json(metadata: Mapping[str, Any]) -> str:
    return json_text(metadata, sort_keys=True, allow_nan=True)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, as hexadecimal digits."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
