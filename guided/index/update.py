"""Bring an index in line with a folder: add the new, replace the changed, drop the gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from guided.errors import UsageError
from guided.index.scan import pictures
from guided.index.writer import Entry, Writer, sha256_of

Embed = Callable[[Sequence[Path]], tuple[list[Path], Tensor, Mapping[Path, str]]]
"""From files to the readable ones, their unit vectors [n, width], and the reasons of the others."""


@dataclass
class Tally:
    """What an update did: files added (new or changed), left alone, and removed; and errors."""

    added: int = 0
    skipped: int = 0
    removed: int = 0
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What an update will do: files to look into, files to leave, and files that are gone."""

    fresh: list[Entry]
    same: list[Entry]
    gone: list[str]
    refused: dict[str, str]


def make_plan(
    writer: Writer, folder: Path, metadata: Mapping[str, Mapping[str, Any]], unsound: set[int]
) -> Plan:
    """Compare a folder with the index by path, size and time; entries in unsound shards are fresh.

    Raises:
        UsageError: no such folder, or a folder without a picture.
    """
    listed = [
        replace(entry, metadata=metadata.get(entry.file, {}))
        for entry in pictures(folder, skip=writer.store.folder)
    ]
    if not listed:
        raise UsageError(
            f"There is no picture in the folder {folder}.",
            hint="Name a folder that holds PNG, JPEG, WebP, GIF, TIFF or BMP files.",
        )
    root = str(folder.resolve()).rstrip("/\\")
    inside = (len(root) + 1, root + "/", len(root) + 1, root + "\\")
    below = "substr(file, 1, ?) = ? OR substr(file, 1, ?) = ?"
    link = writer.store.link
    known = {
        row[0]: row[1:]
        for row in link.execute(
            f"SELECT file, size, mtime, shard FROM items WHERE dead = 0 AND ({below})", inside
        )
    }
    refused = {
        row[0]: row[1:] for row in link.execute(f"SELECT * FROM unreadable WHERE {below}", inside)
    }
    plan = Plan([], [], [], {})
    for entry in listed:
        size, mtime, shard = known.pop(entry.file, (-1, -1, -1))
        failed = refused.pop(entry.file, None)
        if (size, mtime) == (entry.size, entry.mtime) and shard not in unsound:
            plan.same.append(entry)
        elif failed is not None and failed[:2] == (entry.size, entry.mtime):
            plan.refused[entry.file] = failed[2]
        else:
            plan.fresh.append(entry)
    plan.gone.extend([*known, *refused])
    return plan


def update(
    writer: Writer,
    folder: Path,
    embed: Embed,
    *,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    commit: int = 256,
) -> Iterator[Tally]:
    """Bring the index in line with a folder, ``commit`` files a transaction.

    Yields the tally so far after each commit; a run that is killed goes on from its last commit.
    A file whose content is in the index already (a copy, a renamed file) is not embedded again.

    Raises:
        UsageError: no such folder, or a folder without a picture.
    """
    unsound = {damage.shard.number for damage in writer.store.damage()}
    plan = make_plan(writer, folder, metadata or {}, unsound)
    tally = Tally(skipped=len(plan.same), errors=dict(plan.refused))
    if metadata is not None:
        writer.touch(_restated(writer, plan.same))
    writer.remove(plan.gone)
    tally.removed = len(plan.gone)
    yield tally
    for start in range(0, len(plan.fresh), commit):
        _take_in(writer, plan.fresh[start : start + commit], embed, tally, unsound)
        yield tally
    if writer.wasteful() and not writer.store.damage():
        writer.compact()


def _restated(writer: Writer, entries: Sequence[Entry]) -> list[Entry]:
    """The unchanged files whose metadata differ from what the index holds."""
    link: sqlite3.Connection = writer.store.link
    held = dict(link.execute("SELECT file, metadata FROM items WHERE dead = 0").fetchall())
    return [e for e in entries if json.loads(held.get(e.file, "{}")) != dict(e.metadata)]


def _take_in(
    writer: Writer, entries: Sequence[Entry], embed: Embed, tally: Tally, unsound: set[int]
) -> None:
    """One commit's worth of files: touched, reused, embedded or refused."""
    hashed, refused = _hashed(entries)
    held = _held(writer, [entry.file for entry in hashed])
    touched, reused, new = [], [], []
    for entry in hashed:
        digest, shard = held.get(entry.file, ("", -1))
        if digest == entry.digest and shard not in unsound:
            touched.append(entry)
        elif place := writer.vector_of(entry.digest, unsound):
            reused.append((entry, place))
        else:
            new.append(entry)
    writer.touch(touched)
    writer.reuse(reused)
    first = list({entry.digest: entry for entry in reversed(new)}.values())[::-1]
    again = [entry for entry in new if entry not in first]
    failed = _embed(writer, first, embed) if first else {}
    copies = [(entry, writer.vector_of(entry.digest, unsound)) for entry in again]
    writer.reuse([(entry, place) for entry, place in copies if place])
    for entry, place in copies:
        if place is None:
            failed[entry] = "it is a copy of a file that cannot be read"
    refused.update(failed)
    writer.refuse(list(refused.items()))
    tally.skipped += len(touched)
    tally.added += len(entries) - len(touched) - len(refused)
    tally.errors.update({entry.file: reason for entry, reason in refused.items()})


def _hashed(entries: Sequence[Entry]) -> tuple[list[Entry], dict[Entry, str]]:
    done, failed = [], {}
    for entry in entries:
        try:
            done.append(replace(entry, digest=sha256_of(Path(entry.file))))
        except OSError as error:
            failed[entry] = f"it cannot be read: {error.strerror or error}"
    return done, failed


def _held(writer: Writer, files: Sequence[str]) -> dict[str, tuple[str, int]]:
    found = {}
    for file in files:
        row = writer.store.link.execute(
            "SELECT digest, shard FROM items WHERE file = ? AND dead = 0", (file,)
        ).fetchone()
        if row:
            found[file] = (str(row[0]), int(row[1]))
    return found


def _embed(writer: Writer, entries: Sequence[Entry], embed: Embed) -> dict[Entry, str]:
    """Embed and commit files with new content; returns those that could not be read."""
    by_path = {Path(entry.file): entry for entry in entries}
    files, vectors, errors = embed(list(by_path))
    writer.add([by_path[file] for file in files], vectors)
    return {by_path[file]: reason for file, reason in errors.items()}
