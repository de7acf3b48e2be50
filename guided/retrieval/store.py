"""The vector store: SQLite for what is known, shards for the vectors, a transaction as commit.

A write is: vectors to a new shard file, synced and renamed into place; then one transaction that
names the shard and its entries.  A process killed at any moment leaves either both or a file no
one refers to, which the next writer deletes.  Readers see the last commit; there is one writer.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.core.files import make_folder
from guided.core.reading import parse_json
from guided.core.text import restored, stored
from guided.errors import StoreError
from guided.retrieval import schema
from guided.retrieval.filters import Condition
from guided.retrieval.shards import Damage, Shard, read_shard

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
_WIDEST = 1 << 16


@dataclass(frozen=True)
class Snapshot:
    """One commit of an index in memory.

    ``vectors`` [N, width] are float16 unit vectors on the CPU, row i of the file ``files[i]`` with
    the key ``ids[i]`` (ascending).  ``damage`` names the shards that could not be used.
    """

    ids: Tensor
    files: list[str]
    vectors: Tensor
    damage: list[Damage] = field(default_factory=list)


class Store:
    """An index in a folder, open for reading; ``guided.retrieval.writer`` changes it.

    ``model`` and ``fingerprint`` say what made the vectors, ``width`` how long they are.
    """

    def __init__(self, folder: Path, link: sqlite3.Connection) -> None:
        self.folder = folder
        self.link = link
        facts = dict(link.execute("SELECT key, value FROM facts").fetchall())
        version = facts.get("version", "none")
        if version != schema.VERSION:
            raise StoreError(
                f"The index {folder} has the format {version}; this version reads "
                f"{schema.VERSION}.",
                hint="Make it again with guided index, in another folder.",
            )
        self.model: str = facts["model"]
        self.fingerprint: str = facts["fingerprint"]
        self.width = int(facts["width"])
        if not 0 < self.width <= _WIDEST:
            raise ValueError(f"vectors of {self.width} numbers")

    @property
    def shards(self) -> Path:
        """The folder of the vectors."""
        return self.folder / schema.SHARDS

    def close(self) -> None:
        """Close the database."""
        self.link.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_model(self, name: str, fingerprint: str) -> None:
        """Accept the model that made this index.

        Raises:
            StoreError: another model; the message names both.
        """
        if fingerprint != self.fingerprint:
            raise StoreError(
                f"The index {self.folder} was made with the scorer {self.model!r} "
                f"({self.fingerprint[:12]}), not with {name!r} ({fingerprint[:12]}).",
                hint=f"Use --scorer {self.model}, or index the folder again elsewhere.",
            )

    def __len__(self) -> int:
        row = self.link.execute("SELECT count(*) FROM items WHERE dead = 0").fetchone()
        return int(row[0])

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: everything inside sees the same commit.

        Raises:
            StoreError: the database is damaged.
        """
        try:
            self.link.execute("BEGIN")
            try:
                yield self.link
            finally:
                self.link.execute("COMMIT")
        except (sqlite3.DatabaseError, ValueError) as error:
            raise schema.failure(self.folder, error) from error

    def snapshot(self) -> Snapshot:
        """All entries of the last commit whose vectors are sound.

        A shard with a wrong length or checksum is named in the log and in ``damage``; the rest is
        served.

        Raises:
            StoreError: the database is damaged.
        """
        for attempt in range(_ATTEMPTS):
            with self.reading() as link:
                shards = _shards(link)
                entries = link.execute(
                    "SELECT id, file, shard, row FROM items WHERE dead = 0 ORDER BY id"
                ).fetchall()
            snapshot = self._gather(shards, entries, patient=attempt < _ATTEMPTS - 1)
            if snapshot is not None:
                return snapshot
        raise AssertionError("the last attempt always returns")

    def _gather(
        self, shards: list[Shard], entries: list[tuple[int, str, int, int]], *, patient: bool
    ) -> Snapshot | None:
        """The snapshot; None where a shard vanished and ``patient`` says to look again."""
        owner = torch.tensor([entry[2] for entry in entries], dtype=torch.long)
        place = torch.tensor([entry[3] for entry in entries], dtype=torch.long)
        vectors = torch.zeros(len(entries), self.width, dtype=torch.float16)
        sound = torch.zeros(len(entries), dtype=torch.bool)
        damage = []
        for shard in shards:
            rows = torch.nonzero(owner == shard.number).flatten()
            if len(rows) == 0:
                continue
            try:
                found = read_shard(self.shards, shard, self.width)
            except FileNotFoundError:
                if patient:
                    return None
                found = "the file is gone"
            if not isinstance(found, str) and not _fit(place[rows], shard.rows):
                found = "the index names rows that it does not have"
            if isinstance(found, str):
                damage.append(Damage(shard, found, len(rows)))
                logger.warning("A damaged shard is left out: %s", damage[-1])
                continue
            vectors[rows] = found[place[rows]]
            sound[rows] = True
        ids = torch.tensor([entry[0] for entry in entries], dtype=torch.long)
        if damage:
            kept = torch.nonzero(sound).flatten().tolist()
            names = [restored(entries[row][1]) for row in kept]
            return Snapshot(ids[sound], names, vectors[sound], damage)
        return Snapshot(ids, [restored(entry[1]) for entry in entries], vectors)

    def matching(self, condition: Condition) -> Tensor:
        """The keys [n] of the entries that fulfil a condition on their metadata."""
        with self.reading() as link:
            found = link.execute(
                f"SELECT id FROM items WHERE dead = 0 AND ({condition.sql}) ORDER BY id",
                [stored(v) if isinstance(v, str) else v for v in condition.values],
            ).fetchall()
        return torch.tensor([row[0] for row in found], dtype=torch.long)

    def metadata(self, ids: list[int]) -> list[Mapping[str, Any]]:
        """The metadata of entries by key, in the order given."""
        with self.reading() as link:
            return [
                parse_json(row[0], constants=True) if row else {}
                for row in (
                    link.execute("SELECT metadata FROM items WHERE id = ?", (key,)).fetchone()
                    for key in ids
                )
            ]

    def damage(self) -> list[Damage]:
        """Every shard in use that fails its check."""
        with self.reading() as link:
            shards = _shards(link)
            counts = dict(
                link.execute(
                    "SELECT shard, count(*) FROM items WHERE dead = 0 GROUP BY shard"
                ).fetchall()
            )
        found = []
        for shard in shards:
            try:
                state = read_shard(self.shards, shard, self.width)
            except FileNotFoundError:
                state = "the file is gone"
            if isinstance(state, str) and counts.get(shard.number):
                found.append(Damage(shard, state, counts[shard.number]))
        return found


def _fit(places: Tensor, rows: int) -> bool:
    """Whether all entries lie in rows that a shard has."""
    return bool(((places >= 0) & (places < rows)).all())


def _shards(link: sqlite3.Connection) -> list[Shard]:
    rows = link.execute("SELECT id, file, rows, sha256 FROM shards ORDER BY id").fetchall()
    return [Shard(*row) for row in rows]


def open_store(folder: Path) -> Store:
    """The index in a folder.

    Raises:
        StoreError: there is none, it is damaged, or it has another format.
    """
    if not (folder / schema.DATABASE).is_file():
        raise StoreError(
            f"There is no index in {folder}.",
            hint=f"Make one with: guided index PICTURES --index {folder}",
        )
    link = schema.connect(folder)
    try:
        if not schema.has_tables(link):
            raise StoreError(
                f"The index {folder} is empty.",
                hint=f"Fill it with: guided index PICTURES --index {folder}",
            )
        return Store(folder, link)
    except (sqlite3.Error, ValueError, KeyError) as error:
        link.close()
        raise schema.failure(folder, error) from error
    except StoreError:
        link.close()
        raise


def open_or_create(folder: Path, model: str, fingerprint: str, width: int) -> Store:
    """The index in a folder, made where there is none, for vectors of this model.

    Raises:
        StoreError: it was made with another model, is damaged or has another format.
        OutputError: the folder cannot be made.
    """
    if not (folder / schema.DATABASE).is_file():
        make_folder(folder)
    link = schema.connect(folder)
    try:
        if not schema.has_tables(link):
            schema.create(link, model, fingerprint, width)
    except sqlite3.Error as error:
        raise schema.failure(folder, error) from error
    finally:
        link.close()
    store = open_store(folder)
    try:
        store.check_model(model, fingerprint)
    except StoreError:
        store.close()
        raise
    return store
