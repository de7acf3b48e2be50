from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from guided.errors import StoreError, UsageError
from guided.retrieval import scan
from guided.retrieval.filters import parse
from guided.retrieval.scan import survey
from guided.retrieval.store import open_or_create, open_store
from guided.retrieval.writer import Writer
from tests.retrieval.folder import WIDTH, bring_up, check, embed, fill


def counts(tally: object) -> tuple[int, int, int]:
    return tally.added, tally.skipped, tally.removed


def test_it_follows_the_folder(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    files = fill(pictures, 10)
    assert counts(bring_up(index, pictures, commit=3)) == (10, 0, 0)
    assert counts(bring_up(index, pictures)) == (0, 10, 0)
    files[0].unlink()
    files[1].write_bytes(b"changed")
    fill(pictures / "deeper", 2, start=50)
    assert counts(bring_up(index, pictures)) == (3, 8, 1)
    with open_store(index) as store:
        assert len(check(store)) == len(store) == 11
        assert str(files[0]) not in store.snapshot().files


def test_a_copy_and_a_renamed_file_are_not_embedded_again(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    files = fill(pictures, 4)
    bring_up(index, pictures)
    shutil.copy(files[0], pictures / "copy.png")
    files[1].rename(pictures / "renamed.png")
    calls = []
    with open_store(index) as store, Writer(store) as writer:
        from guided.retrieval.update import update

        *_, tally = update(writer, survey(pictures), lambda f: calls.append(f) or embed(f))
        assert counts(tally) == (2, 3, 1)
        assert not calls
        assert len(check(store)) == 5


def test_copies_within_one_commit_share_a_vector(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    files = fill(pictures, 3)
    for i in range(3):
        shutil.copy(files[0], pictures / f"copy{i}.png")
    assert counts(bring_up(tmp_path / "index", pictures)) == (6, 0, 0)
    with open_store(tmp_path / "index") as store:
        check(store)
        rows = store.link.execute("SELECT sum(rows) FROM shards").fetchone()[0]
    assert rows == 3


def test_a_touched_file_is_read_but_not_embedded(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    (file,) = fill(pictures, 1)
    bring_up(index, pictures)
    os.utime(file, ns=(1, 1))
    assert counts(bring_up(index, pictures)) == (0, 1, 0)
    with open_store(index) as store:
        assert store.link.execute("SELECT mtime FROM items").fetchall() == [(1,)]


def test_unreadable_files_are_reported_each_time_but_tried_once(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    fill(pictures, 2)
    bad, twin = pictures / "bad.png", pictures / "bad2.png"
    bad.write_bytes(b"bad 1")
    twin.write_bytes(b"bad 1")
    first, second = bring_up(index, pictures), bring_up(index, pictures)
    assert set(first.errors) == set(second.errors) == {str(bad), str(twin)}
    assert counts(first) == (2, 0, 0)
    assert counts(second) == (0, 2, 0)
    bad.write_bytes(b"good now")
    twin.unlink()
    assert counts(bring_up(index, pictures)) == (1, 2, 1)


def test_a_good_file_that_turns_bad_leaves_the_index(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    files = fill(pictures, 2)
    bring_up(index, pictures)
    files[0].write_bytes(b"bad now")
    tally = bring_up(index, pictures)
    assert list(tally.errors) == [str(files[0])]
    with open_store(index) as store:
        assert check(store) == [str(files[1])]


def test_two_folders_in_one_index(tmp_path: Path) -> None:
    fill(tmp_path / "a", 2)
    fill(tmp_path / "ab", 3, start=10)
    index = tmp_path / "index"
    bring_up(index, tmp_path / "a")
    assert counts(bring_up(index, tmp_path / "ab")) == (3, 0, 0)
    (tmp_path / "a" / "0000.png").unlink()
    assert counts(bring_up(index, tmp_path / "a")) == (0, 1, 1)
    with open_store(index) as store:
        assert len(check(store)) == 4


def test_an_index_inside_the_folder_is_not_indexed(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    index = tmp_path / "index"
    bring_up(index, tmp_path)
    (index / "sheet.png").write_bytes(b"not ours")
    (tmp_path / ".hidden.png").write_bytes(b"hidden")
    assert counts(bring_up(index, tmp_path)) == (0, 2, 0)


def test_folders_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "note.txt").write_text("no picture")
    with pytest.raises(UsageError, match="There is no picture in the folder"):
        bring_up(tmp_path / "index", tmp_path / "empty")
    with pytest.raises(UsageError, match="There is no folder"):
        bring_up(tmp_path / "index", tmp_path / "gone")


def test_an_emptied_folder_does_not_empty_the_index(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    for file in fill(pictures, 3):
        bring_up(index, pictures)
        moved = file
    for file in pictures.iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="no picture"):
        bring_up(index, pictures)
    with open_store(index) as store:
        assert len(store) == 3
    assert not moved.exists()


def test_an_index_of_another_model_names_both(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 1)
    bring_up(tmp_path / "index", tmp_path / "pictures")
    with pytest.raises(StoreError, match=r"'model' .* not with 'other'") as caught:
        open_or_create(tmp_path / "index", "other", "another print", WIDTH)
    assert "--scorer model" in caught.value.hint


def test_metadata_is_kept_and_renewed(tmp_path: Path) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    files = fill(pictures, 3)
    lines = [{"file": f.name, "year": 2000 + i, "a": {"hat": "cap"}} for i, f in enumerate(files)]
    path = pictures / "metadata.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    bring_up(index, pictures)
    lines[2]["year"] = 1990
    path.write_text("\n".join(map(json.dumps, lines)))
    assert counts(bring_up(index, pictures)) == (0, 3, 0)
    with open_store(index) as store:
        assert store.matching(parse("year < 2000")).tolist() == [3]
        assert store.metadata([1])[0] == {"year": 2000, "a": {"hat": "cap"}}
    path.unlink()
    bring_up(index, pictures)
    with open_store(index) as store:
        assert store.metadata([1]) == [{}]


def test_a_thousand_unchanged_files_take_no_time(tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 1000)
    bring_up(tmp_path / "index", tmp_path / "pictures")
    start = time.process_time()
    assert counts(bring_up(tmp_path / "index", tmp_path / "pictures")) == (0, 1000, 0)
    assert time.process_time() - start < 2


def test_a_name_that_is_no_utf8_is_indexed_as_any_other(tmp_path: Path) -> None:
    (good,) = fill(tmp_path, 1)
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(odd, "wb") as file:  # noqa: PTH123 (a Path cannot be made of these bytes)
            file.write(b"content")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listed = [entry.file for entry in scan.pictures(tmp_path)]
    assert sorted(listed) == sorted([str(good), os.fsdecode(odd)])
    assert counts(bring_up(tmp_path / "index", tmp_path)) == (2, 0, 0)
