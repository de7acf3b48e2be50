"""Bring an index in line with a folder: add the new, replace the changed, drop the gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from guided.core.reading import parse_json
from guided.core.text import restored, stored
from guided.retrieval.scan import FolderSurvey, whereabouts
from guided.retrieval.writer import Entry, Writer, sha256_of

Embed = Callable[[Sequence[Path]], tuple[list[Path], Tensor, Mapping[Path, str]]]
"""From files to the readable ones, their unit vectors [n, width], and the reasons of the others."""

_CLOSED = "it cannot be read"


@dataclass
class UpdateStats:
    """What an update did: files added (new or changed), left alone, and removed.

    ``errors`` are files that cannot be read and are not in the index; ``unreachable`` are folders
    and files whose entries stay, because they may be there again.
    """

    added: int = 0
    skipped: int = 0
    removed: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdatePlan:
    """What an update will do: files to look into, files to leave, files that are gone, and those
    that cannot be read or reached, with reasons.
    """

    fresh: list[Entry] = field(default_factory=list)
    same: list[Entry] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)


def make_plan(writer: Writer, found: FolderSurvey, unsound: set[int]) -> UpdatePlan:
    """Compare a folder with the index by path, size and time; entries in unsound shards are fresh.

    A file that is not listed is gone, unless it or a folder above it cannot be reached now.
    """
    link = writer.store.link
    below, inside = below_folder(found.folder)
    known = {
        restored(row[0]): row[1:]
        for row in link.execute(
            f"SELECT file, size, mtime, shard FROM items WHERE dead = 0 AND {below}", inside
        )
    }
    refused = {
        restored(row[0]): row[1:]
        for row in link.execute(f"SELECT * FROM unreadable WHERE {below}", inside)
    }
    plan = UpdatePlan()
    for entry in found.entries:
        size, mtime, shard = known.pop(entry.file, (-1, -1, -1))
        failed = refused.pop(entry.file, None)
        if (size, mtime) == (entry.size, entry.mtime) and shard not in unsound:
            plan.same.append(entry)
        elif (
            failed is not None
            and failed[:2] == (entry.size, entry.mtime)
            and not failed[2].startswith(_CLOSED)  # noted by releases up to 0.1.0
        ):
            plan.refused[entry.file] = restored(failed[2])
        else:
            plan.fresh.append(entry)
    _part(plan, [*known, *refused], found.unreachable)
    return plan


def _part(plan: UpdatePlan, unseen: Sequence[str], closed: Mapping[str, str]) -> None:
    """Tell files that are gone from those that cannot be reached; folders count theirs."""
    kept = dict.fromkeys(closed, 0)
    for file in unseen:
        above = next((place for place in map(str, Path(file).parents) if place in closed), "")
        if above:
            kept[above] += 1
        elif file not in closed and (reason := whereabouts(file)):
            plan.unreachable[file] = _kept(reason, 1)
        elif file not in closed:
            plan.gone.append(file)
        else:
            kept[file] += 1
    for place, reason in closed.items():
        plan.unreachable[place] = _kept(reason, kept[place])


def _kept(reason: str, count: int) -> str:
    """Why something cannot be reached now, and how many entries stay because of it."""
    stay = f"; {count} of the index {'stays' if count == 1 else 'stay'}" if count else ""
    return f"cannot be reached now: {reason}{stay}"


def below_folder(folder: Path) -> tuple[str, tuple[int | str, ...]]:
    """An SQL condition on ``file``, below a folder, and its values."""
    root = stored(str(folder.resolve()).rstrip("/\\"))
    values = (len(root) + 1, root + "/", len(root) + 1, root + "\\")
    return "(substr(file, 1, ?) = ? OR substr(file, 1, ?) = ?)", values


def update(
    writer: Writer, found: FolderSurvey, embed: Embed, *, commit: int = 256
) -> Iterator[UpdateStats]:
    """Bring the index in line with a folder, ``commit`` files a transaction.

    Yields the tally so far after each commit; a run that is killed goes on from its last commit.
    A file whose content is in the index already (a copy, a renamed file) is not embedded again.
    """
    unsound = {damage.shard.number for damage in writer.store.damage()}
    plan = make_plan(writer, found, unsound)
    tally = UpdateStats(
        skipped=len(plan.same), errors=dict(plan.refused), unreachable=dict(plan.unreachable)
    )
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
    return [
        entry
        for entry in entries
        if parse_json(held.get(stored(entry.file), "{}"), constants=True) != dict(entry.metadata)
    ]


def _take_in(
    writer: Writer, entries: Sequence[Entry], embed: Embed, tally: UpdateStats, unsound: set[int]
) -> None:
    """One commit's worth of files: touched, reused, embedded or refused."""
    hashed, closed = _hashed(entries)
    held = _held(writer, [entry.file for entry in entries])
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
    writer.refuse(list(failed.items()))
    tally.skipped += len(touched)
    tally.added += len(hashed) - len(touched) - len(failed)
    tally.errors.update({entry.file: reason for entry, reason in failed.items()})
    for entry, reason in closed.items():  # not refused: it may be readable the next time
        if entry.file in held:
            tally.unreachable[entry.file] = _kept(reason, 1)
        else:
            tally.errors[entry.file] = reason


def _hashed(entries: Sequence[Entry]) -> tuple[list[Entry], dict[Entry, str]]:
    done, failed = [], {}
    for entry in entries:
        try:
            done.append(replace(entry, digest=sha256_of(Path(entry.file))))
        except OSError as error:
            failed[entry] = f"{_CLOSED}: {error.strerror or error}"
    return done, failed


def _held(writer: Writer, files: Sequence[str]) -> dict[str, tuple[str, int]]:
    found = {}
    for file in files:
        row = writer.store.link.execute(
            "SELECT digest, shard FROM items WHERE file = ? AND dead = 0", (stored(file),)
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
