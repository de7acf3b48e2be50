"""A disk that is full while an index is written: told as that, nothing lost, and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guided.errors import StoreError
from guided.retrieval import schema
from guided.retrieval.store import open_or_create, open_store
from guided.retrieval.writer import Entry, Writer

WIDTH = 4


def test_a_full_disk_is_told_and_gone_on_after(tmp_path: Path) -> None:
    index = tmp_path / "index"
    entries = [Entry(f"/{'x' * 200}/{i}.png", 1, 1, f"digest {i}") for i in range(200)]
    with open_or_create(index, "model", "print", WIDTH) as store, Writer(store) as writer:
        writer.add(entries[:2], torch.eye(2, WIDTH))
        pages = store.link.execute("PRAGMA page_count").fetchone()[0]
        store.link.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"cannot be written: the disk is full") as caught:
            writer.add(entries[2:], torch.ones(198, WIDTH))
        assert str(index) in caught.value.message
        assert "Make room" in caught.value.hint
        assert "same command goes on" in caught.value.hint
        assert "elete" not in str(caught.value)
        assert len(store) == 2
        store.link.execute("PRAGMA max_page_count = 100000")
        writer.add(entries[2:], torch.ones(198, WIDTH))
        assert len(store) == 200


def test_what_is_no_database_is_moved_away(tmp_path: Path) -> None:
    (tmp_path / schema.DATABASE).write_bytes(b"no database at all, but long enough" * 100)
    with pytest.raises(StoreError, match="cannot be opened: file is not a database") as caught:
        open_store(tmp_path)
    assert f"Move {tmp_path} away" in caught.value.hint
