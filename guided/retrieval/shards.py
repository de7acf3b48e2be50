"""Vectors on disk: append-only files of float16 rows that are written once and never changed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from guided.core.files import make_folder, write_bytes
from guided.core.shapes import expect
from guided.errors import ShapeError

logger = logging.getLogger(__name__)

SUFFIX = ".f16"
NAME = re.compile(rf"[\w-]+{re.escape(SUFFIX)}")
"""A shard's file: never one in another folder."""


@dataclass(frozen=True)
class Shard:
    """A file of ``rows`` vectors and the sha256 of its bytes; ``number`` is its key."""

    number: int
    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Damage:
    """A shard that cannot be used, why, and how many entries of the index lie in it."""

    shard: Shard
    reason: str
    entries: int = 0

    def __str__(self) -> str:
        return f"{self.shard.file}: {self.reason} ({self.entries} pictures cannot be found)"


def write_shard(folder: Path, number: int, vectors: Tensor) -> Shard:
    """Write vectors [n, D] as float16 under a fresh name, whole and synced to the disk.

    The shard counts only once a transaction refers to it.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
        ShapeError: another shape, or values that are not finite.
    """
    expect(vectors, "n d", "vectors")
    if not bool(vectors.isfinite().all()):
        raise ShapeError("vectors must be finite; some values are NaN or infinite.")
    data = vectors.detach().to("cpu", torch.float16).contiguous().numpy().tobytes()
    name = f"{number:08d}-{secrets.token_hex(4)}{SUFFIX}"
    write_bytes(make_folder(folder) / name, data)
    return Shard(number, name, len(vectors), hashlib.sha256(data).hexdigest())


def read_shard(folder: Path, shard: Shard, width: int) -> Tensor | str:
    """The vectors [rows, width] (float16) of a shard, or what is wrong with the file.

    Raises:
        FileNotFoundError: the file is gone (a compaction may have replaced it).
    """
    if not NAME.fullmatch(shard.file):
        return "its name is not that of a shard"
    path = folder / shard.file
    expected = shard.rows * width * 2
    try:
        length = path.stat().st_size
        if length != expected or not path.is_file():
            return f"it has {length} bytes instead of {expected}"
        data = bytearray(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        return "its checksum differs from the one it was written with"
    vectors = torch.frombuffer(data, dtype=torch.float16).view(shard.rows, width)
    return vectors if bool(vectors.isfinite().all()) else "it holds numbers that are not finite"


def delete_orphans(folder: Path, referenced: set[str]) -> list[str]:
    """Delete what a killed writer left: files no transaction refers to.  Returns their names."""
    removed = []
    for entry in os.scandir(folder) if folder.is_dir() else ():
        leftover = entry.name.endswith(".part") or entry.name.endswith(SUFFIX)
        if leftover and entry.name not in referenced:
            Path(entry.path).unlink(missing_ok=True)
            removed.append(entry.name)
    return removed
