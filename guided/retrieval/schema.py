"""The SQLite file of an index: its tables, its connection, its version."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from guided.errors import StoreError

DATABASE = "index.sqlite"
LOCK = "writer.sqlite"
SHARDS = "vectors"
VERSION = "1"
_WAIT = 30.0

#: Errors of a write that the disk did not take.
_NOT_WRITTEN = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)  # fmt: skip
#: Errors of a file that is no database, or no longer one.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})

TABLES = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE shards (
    id INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE items (
    id INTEGER PRIMARY KEY, file TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    digest TEXT NOT NULL, shard INTEGER NOT NULL REFERENCES shards (id), row INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}', dead INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX alive_files ON items (file) WHERE dead = 0;
CREATE INDEX digests ON items (digest);
CREATE TABLE unreadable (
    file TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE commits (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL DEFAULT (datetime('now')),
    added INTEGER NOT NULL, removed INTEGER NOT NULL
);
"""


def connect(folder: Path) -> sqlite3.Connection:
    """A connection to the index in a folder: write-ahead log, explicit transactions.

    Raises:
        StoreError: the file is not a database or cannot be opened.
    """
    path = folder / DATABASE
    try:
        link = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
        link.create_function("file_name", 1, _name, deterministic=True)
        link.create_function("file_folder", 1, _folder, deterministic=True)
        link.create_function("has_text", 2, _has_text, deterministic=True)
        link.execute("PRAGMA journal_mode = WAL")
        link.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        raise failure(folder, error, "opened") from error
    return link


def failure(folder: Path, error: Exception, what: str = "used") -> StoreError:
    """What an error of the database means: a full disk, a lock, no permission, or damage."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    kind = code & 0xFF
    if kind == sqlite3.SQLITE_FULL or code in _NOT_WRITTEN:
        return StoreError(
            f"The index {folder} cannot be written: the disk is full ({error}).",
            hint="Make room on that disk; the index keeps what is in it, and the same command "
            "goes on.",
        )
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"Another process is writing to the index {folder} ({error}).",
            hint="Wait for it to end, then give the same command again.",
        )
    if kind in _DAMAGED:
        opened = f"The index {folder / DATABASE} cannot be opened: {error}."
        return StoreError(
            opened if what == "opened" else f"The index {folder} is damaged: {error}.",
            hint=f"Move {folder} away and run guided index on the pictures again.",
        )
    return StoreError(
        f"The index {folder} cannot be {what}: {error}.",
        hint="Check the permissions of that folder and the health of its disk.",
    )


def _name(file: str) -> str:
    return Path(file).name


def _folder(file: str) -> str:
    return Path(file).parent.as_posix()


def _has_text(whole: object, part: object) -> bool:
    return whole is not None and str(part).casefold() in str(whole).casefold()


def create(link: sqlite3.Connection, model: str, fingerprint: str, width: int) -> None:
    """Make the tables and record what the vectors come from, all in one transaction."""
    facts = {"version": VERSION, "model": model, "fingerprint": fingerprint, "width": str(width)}
    link.execute("BEGIN IMMEDIATE")
    try:
        if not has_tables(link):
            for statement in TABLES.split(";"):
                if statement.strip():
                    link.execute(statement)
            link.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk may have ended it already
            link.execute("ROLLBACK")
        raise
    link.execute("COMMIT")


def has_tables(link: sqlite3.Connection) -> bool:
    """Whether the file is an index already (a killed first run may leave it empty)."""
    row = link.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone()
    return row is not None


def lock(folder: Path) -> sqlite3.Connection:
    """The right to write, held until the connection closes or its process dies.

    Raises:
        StoreError: another process holds it.
    """
    link = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        link.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        link.close()
        raise StoreError(
            f"Another process is writing to the index {folder} ({error}).",
            hint="Wait for it to end; searching works meanwhile.",
        ) from error
    return link
