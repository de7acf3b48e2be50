"""What is gone leaves the index, what cannot be reached stays, and both are told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from guided.core import listing
from guided.errors import UsageError
from guided.retrieval import scan, writer
from guided.retrieval.prune import ghosts, prune
from guided.retrieval.scan import survey
from guided.retrieval.store import open_store
from guided.retrieval.writer import Writer
from tests.retrieval.folder import bring_up, fill


def close(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Make a folder one that may not be opened (permissions do not bind the root user)."""
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if Path(path) == place:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)


def files_of(index: Path) -> list[str]:
    with open_store(index) as store:
        return sorted(Path(file).name for file in store.snapshot().files)


def test_a_folder_that_cannot_be_opened_keeps_its_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, index = tmp_path / "in", tmp_path / "index"
    fill(pictures, 2)
    fill(pictures / "album" / "deep", 2, start=5)
    bring_up(index, pictures)
    (pictures / "0000.png").unlink()
    with monkeypatch.context() as patch:
        close(patch, pictures / "album")
        tally = bring_up(index, pictures)
        close(patch, pictures)
        with pytest.raises(UsageError, match="cannot be opened: Permission denied"):
            bring_up(index, pictures)
    assert tally.removed == 1
    assert tally.unreachable == {
        str(pictures / "album"): "cannot be reached now: Permission denied; 2 of the index stay"
    }
    assert files_of(index) == ["0001.png", "0005.png", "0006.png"]
    shutil.rmtree(pictures / "album")
    tally = bring_up(index, pictures)
    assert (tally.removed, tally.unreachable) == (2, {})


def test_a_file_that_cannot_be_opened_keeps_its_entry_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, index = tmp_path / "in", tmp_path / "index"
    old, other = fill(pictures, 2)
    bring_up(index, pictures)
    for file in (old, pictures / "new.png"):
        file.write_bytes(b"changed" + file.name.encode())
    digest = writer.sha256_of

    def closed(path: Path) -> str:
        if path != other:
            raise PermissionError(13, "Permission denied")
        return digest(path)

    with monkeypatch.context() as patch:
        patch.setattr("guided.retrieval.update.sha256_of", closed)
        tally = bring_up(index, pictures)
    assert list(tally.unreachable) == [str(old)]
    assert list(tally.errors) == [str(pictures / "new.png")]
    assert files_of(index) == ["0000.png", "0001.png"]
    tally = bring_up(index, pictures)  # nothing of the files changed but that they can be read
    assert (tally.added, tally.errors, tally.unreachable) == (2, {}, {})


def test_a_link_that_leads_nowhere_now_keeps_its_entry(tmp_path: Path) -> None:
    pictures, index = tmp_path / "in", tmp_path / "index"
    (target,) = fill(tmp_path / "disk", 1)
    fill(pictures, 1, start=3)
    (pictures / "linked.png").symlink_to(target)
    bring_up(index, pictures)
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    tally = bring_up(index, pictures)
    assert list(tally.unreachable) == [str(pictures / "linked.png")]
    assert files_of(index) == ["0003.png", "linked.png"]
    (pictures / "linked.png").unlink()
    assert bring_up(index, pictures).removed == 1


def test_a_folder_that_moved_is_told_and_forgotten_when_asked_to(tmp_path: Path) -> None:
    index = tmp_path / "index"
    fill(tmp_path / "albums" / "a", 3)
    fill(tmp_path / "albums" / "b", 2, start=10)
    (bad,) = fill(tmp_path / "albums" / "b", 1, start=20)
    bad.write_bytes(b"bad")
    fill(tmp_path / "kept", 2, start=30)
    for folder in (tmp_path / "albums", tmp_path / "kept"):
        bring_up(index, folder)
    (tmp_path / "albums").rename(tmp_path / "moved")
    bring_up(index, tmp_path / "moved")
    with open_store(index) as store, Writer(store) as held:
        assert ghosts(store, tmp_path / "moved") == {str(tmp_path / "albums"): 5}
        assert len(store) == 12
        assert len(prune(held)) == 5
        assert len(store) == 7
        assert ghosts(store, tmp_path / "moved") == {}
        assert prune(held) == []
        assert store.link.execute("SELECT count(*) FROM unreadable").fetchone() == (1,)


def test_what_looks_like_a_picture_and_is_not_read_is_left_out_with_the_reason(
    tmp_path: Path,
) -> None:
    fill(tmp_path, 1)
    for name in ("a.HEIC", "b.mp4", "c.svg", "d.cr2", "e.psd", "._f.heic", "g.txt"):
        (tmp_path / name).write_bytes(b"x")
    fill(tmp_path / ".thumbnails", 1)
    (tmp_path / "linked").symlink_to(tmp_path.parent)
    found = survey(tmp_path)
    assert [Path(entry.file).name for entry in found.entries] == ["0000.png"]
    told = {Path(file).name: reason for file, reason in found.left_out.items()}
    assert sorted(told) == ["a.HEIC", "b.mp4", "c.svg", "d.cr2", "e.psd", "linked"]
    assert "HEIC" in told["a.HEIC"]
    assert "video" in told["b.mp4"]
    (tmp_path / "0000.png").unlink()
    with pytest.raises(UsageError, match=r"no picture in .* that can be read: .*a\.HEIC \(HEIC"):
        survey(tmp_path)


def test_pictures_of_a_folder_without_what_others_leave_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = fill(tmp_path, 2)
    for name in ("._0000.png", "a.heic", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    assert listing.images_in(tmp_path) == files
    assert "1 left out" in caplog.text
    assert "a.heic (HEIC pictures are not read; save it as JPEG or PNG)" in caplog.text


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_system_takes_are_missing(name: str) -> None:
    assert scan.missing(f"/{name}.png")
