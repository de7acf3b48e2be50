from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import torch

from guided.errors import StoreError
from guided.retrieval import schema
from guided.retrieval.shards import SUFFIX
from guided.retrieval.store import open_or_create, open_store
from guided.retrieval.writer import Entry, Writer
from tests.retrieval.folder import WIDTH, bring_up, check, fill


def shards(index: Path) -> list[Path]:
    return sorted((index / "vectors").glob(f"*{SUFFIX}"))


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[7] ^= 1
        file.write_bytes(data)
    elif how == "short":
        file.write_bytes(data[:-3])
    else:
        file.unlink()


@pytest.mark.parametrize(
    ("how", "reason"),
    [("flipped", "checksum differs"), ("short", "bytes instead of"), ("gone", "file is gone")],
)
def test_a_damaged_shard_is_found_and_the_rest_served(
    tmp_path: Path, how: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 9)
    bring_up(index, pictures, commit=3)
    broken = shards(index)[1]
    damage(broken, how)
    with open_store(index) as store:
        files = check(store)
        (found,) = store.snapshot().damage
        assert store.damage() == [found]
    assert len(files) == 6
    assert found.shard.file == broken.name
    assert found.entries == 3
    assert reason in found.reason
    assert broken.name in caplog.text
    assert f"{broken.name}: " in str(found)


@pytest.mark.parametrize("how", ["flipped", "short", "gone"])
def test_indexing_again_repairs_a_damaged_shard(tmp_path: Path, how: str) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 9)
    bring_up(index, pictures, commit=3)
    damage(shards(index)[0], how)
    tally = bring_up(index, pictures)
    assert (tally.added, tally.skipped) == (3, 6)
    with open_store(index) as store:
        assert len(check(store)) == 9
        assert store.damage() == []


def test_tombstones_and_compaction(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    files = fill(pictures, 12)
    bring_up(index, pictures, commit=2)
    for file in files[::3]:
        file.unlink()
    bring_up(index, pictures)
    with open_store(index) as store, Writer(store) as writer:
        assert not writer.wasteful()
        before = check(store)
        assert len(shards(index)) == 6
        assert writer.compact() == 4
        assert check(store) == before
        assert len(shards(index)) == 1
        assert store.link.execute("SELECT count(*) FROM items WHERE dead = 1").fetchone() == (0,)
    bring_up(index, pictures)
    with open_store(index) as store:
        assert check(store) == before


def test_compaction_comes_by_itself(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 70)
    bring_up(index, pictures, commit=1)
    assert len(shards(index)) == 1
    with open_store(index) as store:
        assert len(check(store)) == 70


def test_compaction_refuses_a_damaged_shard(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 4)
    bring_up(index, pictures, commit=2)
    damage(shards(index)[0], "flipped")
    with (
        open_store(index) as store,
        Writer(store) as writer,
        pytest.raises(StoreError, match=f"{shards(index)[0].name}.*checksum"),
    ):
        writer.compact()
    assert len(shards(index)) == 2


def test_a_reader_looks_again_when_a_compaction_took_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 6)
    bring_up(index, pictures, commit=2)
    from guided.retrieval import store as module

    read, done = module.read_shard, []

    def read_after_compaction(*arguments: object) -> object:
        if not done:
            done.append(1)
            with open_store(index) as other, Writer(other) as writer:
                writer.compact()
        return read(*arguments)

    monkeypatch.setattr(module, "read_shard", read_after_compaction)
    with open_store(index) as store:
        assert len(check(store)) == 6
        assert store.snapshot().damage == []


def test_there_is_one_writer(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 1)
    bring_up(tmp_path / "index", tmp_path / "pictures")
    with (
        open_store(tmp_path / "index") as store,
        Writer(store),
        open_store(tmp_path / "index") as other,
        pytest.raises(StoreError, match="Another process is writing"),
    ):
        Writer(other)
    with open_store(tmp_path / "index") as store, Writer(store):
        pass


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 2)
    bring_up(index, pictures)
    (index / "vectors" / f"00000009-deadbeef{SUFFIX}").write_bytes(b"orphan")
    (index / "vectors" / ".0123.part").write_bytes(b"half")
    (index / "vectors" / "notes.txt").write_text("the user's own")
    with open_store(index) as store, Writer(store):
        pass
    left = sorted(file.suffix for file in (index / "vectors").iterdir())
    assert left == [SUFFIX, ".txt"]


def test_a_failed_commit_leaves_nothing(tmp_path: Path) -> None:
    index = tmp_path / "index"
    with open_or_create(index, "model", "print", WIDTH) as store, Writer(store) as writer:
        entries = [Entry("/a.png", 1, 1, "x"), Entry("/b.png", 1, None, "y")]
        with pytest.raises(StoreError, match="cannot be written"):
            writer.add(entries, torch.eye(2, WIDTH))
        assert len(store) == 0
        assert store.link.execute("SELECT count(*) FROM shards").fetchone() == (0,)


def test_folders_that_hold_no_index(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no index in") as caught:
        open_store(tmp_path)
    assert "guided index" in caught.value.hint
    (tmp_path / schema.DATABASE).write_bytes(b"this is no database, whatever its name says" * 40)
    with pytest.raises(StoreError, match=r"index\.sqlite cannot be opened"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match=r"index\.sqlite cannot be opened"):
        open_or_create(tmp_path, "model", "print", WIDTH)


def test_an_empty_database_is_an_index_that_was_never_filled(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / schema.DATABASE).close()
    (tmp_path / schema.DATABASE).touch()
    with pytest.raises(StoreError, match="is empty"):
        open_store(tmp_path)
    open_or_create(tmp_path, "model", "print", WIDTH).close()
    open_store(tmp_path).close()


def test_an_index_of_another_format(tmp_path: Path) -> None:
    open_or_create(tmp_path, "model", "print", WIDTH).close()
    link = schema.connect(tmp_path)
    link.execute("UPDATE facts SET value = '99' WHERE key = 'version'")
    link.close()
    with pytest.raises(StoreError, match="has the format 99; this version reads 1"):
        open_store(tmp_path)
