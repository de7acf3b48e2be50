"""Output names never leave their folder; files are written whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guided.core.files import inside, make_folder, new_folder, safe_name, write_bytes, write_text
from guided.errors import OutputError

HOSTILE = [
    "", ".", "..", "/", "//", "../x", "a/../../x", "a/..", "a/../b", "./a", "a//b", "a/", "/etc/x",
    "/a.png", "\\", "..\\x", "a\\b", "\\\\server\\share\\x", "//server/share", "C:\\x", "C:x",
    "c:/x", "a\0b", "\0", "a\nb", "a\rb",
    "a\x1b[31m", "a\x7fb", "CON", "con.png", "nul", "NUL.txt", "COM1",
    "lpt9.png", "aux.tar.gz", "a/PRN", "%2e%2e/x", "%2e%2e%2fx", "a%2f..%2fx", "%5cx", "%00", "%2e",
    "．．/x", "‥/x", "․․/x", "a／b", "..／x", "＼x", "a＼..", "-rf", "--help", "a/-rf", "~",
    "~root/x", " a", "a ", "a.", "...", "a/. /b", "a*b", "a?b", 'a"b', "a<b", "a|b", "file:stream",
    "x" * 5000,
    "é" * 150, "/".join("a" * 600), "\u202egnp.exe", "\u2066x", "\ud800", "CONIN$", "com¹",
]  # fmt: skip
LEGAL = [
    "picture.png", "test..png", "a..b", "🦊.png", "👩‍🎨 at work.png", "two words.png", "日本.png",
    "naïve (1).png", "100%.png", ".hidden", "sub/folder/p.png", "a=b&c'd.png", "x" * 190 + ".png",
]  # fmt: skip


def test_there_are_enough_names() -> None:
    assert len(set(HOSTILE)) >= 60
    assert len(set(LEGAL)) >= 10


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "outputs")
    with pytest.raises(OutputError, match=r"(?s)output name .* Use a plain relative name"):
        inside(folder, name)


@pytest.mark.parametrize("name", LEGAL, ids=range(len(LEGAL)))
def test_odd_but_legal_names_work(tmp_path: Path, name: str) -> None:
    path = inside(tmp_path, name)
    make_folder(path.parent)
    write_bytes(path, b"x")
    assert path.is_relative_to(tmp_path.resolve())
    assert (tmp_path / name).read_bytes() == b"x"


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    folder, outside = make_folder(tmp_path / "outputs"), make_folder(tmp_path / "outside")
    write_text(outside / "kept.txt", "kept")
    (folder / "door").symlink_to(outside)
    (folder / "file.png").symlink_to(outside / "kept.txt")
    (folder / "new.png").symlink_to(outside / "new.png")
    (folder / "loop").symlink_to(folder / "loop")
    for name in ("door/x.png", "file.png", "new.png", "door", "loop/x.png"):
        with pytest.raises(OutputError, match="through a link"):
            inside(folder, name)
    (folder / "own").symlink_to(make_folder(folder / "sub"))
    assert inside(folder, "own/x.png").parent.resolve() == (folder / "sub").resolve()
    (tmp_path / "alias").symlink_to(folder)  # the folder itself may be reached through a link
    assert inside(tmp_path / "alias", "x.png") == folder.resolve() / "x.png"


@pytest.mark.parametrize("text", [*HOSTILE, *LEGAL, "A smiling woman", "ÀÉÎ", "日本"])
def test_any_text_makes_a_safe_name(tmp_path: Path, text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name) <= 40
    assert inside(tmp_path, name).parent == tmp_path.resolve()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "before")
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from guided.core.files import write_bytes\n"
        "from guided.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_bytes(Path(sys.argv[1]), bytes(5000))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert "the file would be larger than this system allows" in done.stdout
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000
    assert signal.getsignal(signal.SIGXFSZ) is not None


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch) -> None:
    path = write_text(tmp_path / "a.txt", "before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    with pytest.raises(OutputError, match="a file is where a folder is needed"):
        write_text(tmp_path / "file" / "x", "y")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="a folder of that name is in the way"):
        write_text(tmp_path / "folder", "y")
    with pytest.raises(OutputError, match="Name a folder that can be written with --out"):
        write_text(tmp_path / "nowhere" / "x", "y")
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file" / "sub")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "locked")
    folder.chmod(0o500)
    with pytest.raises(OutputError, match="not permitted"):
        write_text(folder / "x", "y")


def test_an_interrupted_block_changes_nothing(tmp_path: Path) -> None:
    from guided.core.files import replacing

    path = write_text(tmp_path / "a.txt", "before")

    def half() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "x")
    (tmp_path / "plain.txt").write_text("x")
    assert path.stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_new_folders_do_not_share_a_name(tmp_path: Path) -> None:
    made = [new_folder(tmp_path / "run") for _ in range(3)]
    assert [folder.name for folder in made] == ["run", "run-2", "run-3"]
