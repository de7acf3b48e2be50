"""A folder of small files and an embedding that is a function of their content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from guided.retrieval.scan import survey
from guided.retrieval.store import Store, open_or_create
from guided.retrieval.update import UpdateStats, update
from guided.retrieval.writer import Writer

WIDTH = 16


def fill(folder: Path, count: int, start: int = 0) -> list[Path]:
    """Write files with different content; their names end like pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:04d}.png" for i in range(start, start + count)]
    for i, file in enumerate(files, start):
        file.write_bytes(f"content {i}".encode())
    return files


def vector(content: bytes) -> Tensor:
    """The unit vector [16] of a content, as it is stored."""
    seed = int.from_bytes(hashlib.sha256(content).digest()[:7], "little")
    row = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(row, dim=0).half()


def embed(files: Sequence[Path]) -> tuple[list[Path], Tensor, Mapping[Path, str]]:
    good = [file for file in files if not file.read_bytes().startswith(b"bad")]
    rows = [vector(file.read_bytes()) for file in good]
    errors = {file: "it is bad" for file in files if file not in good}
    return good, torch.stack(rows) if rows else torch.zeros(0, WIDTH), errors


def bring_up(index: Path, folder: Path, **options: object) -> UpdateStats:
    """Index a folder from start to end."""
    with open_or_create(index, "model", "print", WIDTH) as store, Writer(store) as writer:
        *_, tally = update(writer, survey(folder, index), embed, **options)
    return tally


def check(store: Store) -> list[str]:
    """The files of the last commit, after checking that each has its own vector, once."""
    snapshot = store.snapshot()
    assert len(set(snapshot.files)) == len(snapshot.files), "a file is there twice"
    for file, row in zip(snapshot.files, snapshot.vectors, strict=True):
        assert torch.equal(row, vector(Path(file).read_bytes())), f"{file} has another vector"
    return snapshot.files
