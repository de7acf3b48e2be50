"""Runs never share a folder by chance and never replace what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from guided import studio
from guided.core.files import create_bytes, new_folder
from guided.core.run import Result
from guided.errors import OutputError
from guided.recipe import Recipe
from guided.tasks.base import TaskContext
from guided.worlds.portraits.tasks import portraits


def _recipe(out: Path | None = None, **keys: object) -> Recipe:
    where = {} if out is None else {"out": str(out)}
    return Recipe.of({"task": "portraits", "count": 2, "size": 32, **where, **keys})


def _made(out: Path | None = None, **keys: object) -> Result:
    return studio.run(_recipe(out, **keys)).result()


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_ten_processes_at_once_get_ten_folders(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from guided.core.files import new_folder, create_bytes\n"
        "time.sleep(max(0, float(sys.argv[1]) - time.time()))\n"
        "for _ in range(20):\n"
        "    folder = new_folder(Path('outputs/run'))\n"
        "    assert create_bytes(folder / 'a', b'a') and not create_bytes(folder / 'a', b'b')\n"
        "    print(folder.name)\n"
    )
    import time

    start = str(time.time() + 2)
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, start], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for _ in range(10)
    ]
    names = [name for job in jobs for name in job.communicate()[0].split()]
    assert [job.returncode for job in jobs] == [0] * 10
    assert len(set(names)) == len(names) == 200


def test_of_many_writers_of_one_name_one_creates_it(tmp_path: Path) -> None:
    for turn in range(20):
        path, made = tmp_path / f"{turn}", list[int]()

        def write(number: int, path: Path = path, made: list[int] = made) -> None:
            if create_bytes(path, b"%d" % number * 1000):
                made.append(number)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert path.read_bytes() == b"%d" % made[0] * 1000
        assert len(made) == 1
    assert len(list(tmp_path.iterdir())) == 20


def test_a_file_system_without_links_creates_as_exclusively(tmp_path: Path, monkeypatch) -> None:
    def none(*_: object) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(os, "link", none)
    assert create_bytes(tmp_path / "a", b"first")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for taken in ("a", "dangling"):
        assert not create_bytes(tmp_path / taken, b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert not (tmp_path / "nowhere").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "dangling"]


def test_runs_that_begin_together_save_apart(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [studio.run(_recipe(split=split)) for split in ("train", "val", "test")]
    steps = [iter(run) for run in runs]
    for each in steps:
        next(each)
    folders = [run.result().folder for run in runs]
    assert len(set(folders)) == 3
    assert all(folder and len(list(folder.glob("*.png"))) == 2 for folder in folders)


def test_runs_that_begin_together_in_one_folder_lose_nothing(tmp_path: Path) -> None:
    splits = ("train", "val", "test", "train")
    runs = [studio.run(_recipe(tmp_path, split=split)) for split in splits]
    steps = [iter(run) for run in runs]
    for each in steps:
        next(each)
    for run in runs:
        run.result()
    assert len(list(tmp_path.glob("*.png"))) == 6  # the fourth run is the first one again
    recipes = [Recipe.load(path) for path in tmp_path.glob("recipe*.toml")]
    assert sorted(recipe.options.split for recipe in recipes) == ["test", "train", "val"]  # type: ignore[attr-defined]
    tables = [path.read_text() for path in tmp_path.glob("portraits*.jsonl")]
    named = sorted(json.loads(line)["file"] for text in tables for line in text.splitlines())
    assert named == sorted(path.name for path in tmp_path.glob("*.png"))


def test_planning_and_answers_alone_make_no_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    studio.plan(_recipe())
    studio.run(_recipe())
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_no_empty_folder(tmp_path: Path, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise OutputError("no")

    monkeypatch.setattr(portraits, "_drawn", fails)
    with pytest.raises(OutputError, match="no"):
        _made(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "own").mkdir()
    with pytest.raises(OutputError, match="no"):
        _made(tmp_path / "own")
    assert (tmp_path / "own").is_dir()  # it was the user's


def test_the_same_run_into_its_folder_changes_no_picture(tmp_path: Path) -> None:
    first = _made(tmp_path)
    before = _contents(tmp_path)
    second = _made(tmp_path)
    after = _contents(tmp_path)
    assert first.answer == second.answer
    assert sorted(before) == sorted(after)
    assert {n for n in before if before[n] != after[n]} <= {"run.json", "steps.jsonl"}


def test_a_longer_run_goes_on_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _made(folder)
    before = _contents(folder)
    _made(folder, count=3)
    after = _contents(folder)
    assert len(after["portraits.jsonl"].splitlines()) == 3
    assert after["portraits.jsonl"].startswith(before["portraits.jsonl"])
    assert {name: after[name] for name in before if name.endswith((".png", ".toml"))} == {
        name: before[name] for name in before if name.endswith((".png", ".toml"))
    }
    assert Recipe.load(folder / "recipe-2.toml").options.count == 3  # type: ignore[attr-defined]
    assert json.loads(after["run-2.json"])["answer"]["count"] == 3
    assert len(studio.history(tmp_path)) == 2
    assert studio.load_run(folder).recipe.options.count == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", ["recipe.toml", "run.json", "steps.jsonl", "train-000000-32.png", "portraits.jsonl"]
)
@pytest.mark.parametrize("as_link", [False, True])
def test_a_file_of_the_user_is_never_replaced(tmp_path: Path, name: str, as_link: bool) -> None:
    out, own = tmp_path / "out", tmp_path / "own"
    out.mkdir()
    own.write_bytes(b"took hours")
    if as_link:
        (out / name).symlink_to(own)
    else:
        (out / name).write_bytes(b"took hours")
    if name == "portraits.jsonl":
        with pytest.raises(OutputError, match=r"portraits\.jsonl is there already.*--force"):
            _made(out)
        assert list(out.iterdir()) == [out / name]
    else:
        _made(out)
        assert len(list(out.glob("*.png"))) == 2 + (name.endswith(".png"))
        files = [
            json.loads(line)["file"] for line in (out / "portraits.jsonl").read_text().splitlines()
        ]
        assert files[0] == (
            "train-000000-32-2.png" if name.endswith(".png") else "train-000000-32.png"
        )
        assert studio.load_run(out).recipe == _recipe()
        assert Path(studio.show(out)["file"]) == out
        again = _made(out)  # the same run finds its pictures under their other names
        assert again.answer["count"] == 2
        assert len(list(out.glob("*.png"))) == 2 + (name.endswith(".png"))
    assert (out / name).read_bytes() == own.read_bytes() == b"took hours"


@pytest.mark.parametrize("name", ["recipe.toml", "train-000000-32.png", "portraits.jsonl"])
def test_force_replaces_what_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")
    result = _made(tmp_path, force=True)
    assert result.folder == tmp_path
    assert (tmp_path / name).read_bytes() != b"old"
    assert not list(tmp_path.glob("*-2.*"))
    assert "force" not in (tmp_path / "recipe.toml").read_text()


def test_a_run_does_not_replace_its_own_recipe(
    guided_cli: Callable, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = '# notes that took hours\ntask = "portraits"\ncount = 1\nsize = 32\n'
    Path("recipe.toml").write_text(own)
    assert guided_cli("run", "recipe.toml", "--out", ".", "--json").status == 0
    assert Path("recipe.toml").read_text() == own
    assert Recipe.load("recipe-2.toml") == Recipe.load("recipe.toml")
    assert guided_cli("show", ".").out == Path("recipe-2.toml").read_text()
    assert guided_cli("run", "recipe.toml", "--out", ".", "--json", "--force").status == 0
    assert Path("recipe.toml").read_text() == Path("recipe-2.toml").read_text()


def test_a_recipe_that_was_printed_into_the_folder_stays_with_other_files(tmp_path: Path) -> None:
    """A user's recipe may equal what the run keeps: still no other file is the run's own."""
    (tmp_path / "recipe.toml").write_text(_recipe().dumps())
    (tmp_path / "run.json").write_text("{}")
    _made(tmp_path)
    assert (tmp_path / "run.json").read_text() == "{}"
    assert (tmp_path / "run-2.json").is_file()


def test_an_answer_names_the_files_as_they_were_saved(tmp_path: Path) -> None:
    from guided.run_folder import RunWriter

    (tmp_path / "a.gif").write_bytes(b"mine")
    ctx = TaskContext(folder=tmp_path)
    result = Result({"animation": str(tmp_path / "a.gif")}, files={"a.gif": b"theirs"})
    RunWriter(_recipe(), ctx, 0.0).keep(result, [])
    assert result.answer == {"animation": str(tmp_path / "a-2.gif")}
    assert [(tmp_path / n).read_bytes() for n in ("a.gif", "a-2.gif")] == [b"mine", b"theirs"]
    again = Result({"animation": str(tmp_path / "a.gif")}, files={"a.gif": b"newer"})
    RunWriter(_recipe(), ctx, 0.0).keep(again, [])
    assert again.answer == {"animation": str(tmp_path / "a-2.gif")}
    assert [(tmp_path / n).read_bytes() for n in ("a.gif", "a-2.gif")] == [b"mine", b"newer"]


def test_what_a_run_wrote_is_its_own_until_somebody_changes_it(tmp_path: Path) -> None:
    from guided.run_folder import RunWriter

    def saved(text: str) -> None:
        RunWriter(_recipe(), TaskContext(folder=tmp_path), 0.0).keep(
            Result({}, files={"t.csv": text}), []
        )

    saved("one")
    saved("two")
    assert (tmp_path / "t.csv").read_text() == "two"
    (tmp_path / "t.csv").write_text("mine")
    saved("three")
    assert (tmp_path / "t.csv").read_text() == "mine"
    assert (tmp_path / "t-2.csv").read_text() == "three"


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch
) -> None:
    def works(*_: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(portraits, "_entry", works)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="a file of that name is in the way"):
        _made(tmp_path / "file")
    with pytest.raises(OutputError, match="a file is where a folder is needed"):
        _made(tmp_path / "file" / "sub")
    original = os.open

    def read_only(path: object, *more: object) -> int:
        if str(path).endswith(".part"):
            raise PermissionError(13, "Permission denied")
        return original(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OutputError, match=r"Cannot write .*locked: writing is not permitted there"):
        _made(tmp_path / "locked")
    assert (tmp_path / "file").read_text() == "x"


def test_half_made_folders_do_not_disturb(
    tmp_path: Path, guided_cli: Callable, monkeypatch, caplog
) -> None:
    monkeypatch.chdir(tmp_path)
    good = _made(tmp_path / "outputs" / "good").folder
    assert good is not None
    damage: dict[str, bytes | None] = {
        "empty": b"", "deep": b"[" * 100_000, "list": b"[]", "bytes": b"\xff\xfe", "folder": None,
        "long": b'{"started": ' + b"[" * 3_000_000 + b"}",
    }  # fmt: skip
    for name, content in damage.items():
        folder = new_folder(tmp_path / "outputs" / name)
        (folder / "recipe.toml").write_bytes((good / "recipe.toml").read_bytes())
        if content is None:
            (folder / "run.json").mkdir()
        else:
            (folder / "run.json").write_bytes(content)
    begun = new_folder(tmp_path / "outputs" / "begun")
    (begun / "recipe.toml").write_text("[" * 100_000)
    (new_folder(tmp_path / "outputs" / "odd") / "run.json").write_text("{}")
    os.mkfifo(new_folder(tmp_path / "outputs" / "pipe") / "run.json")
    assert [Path(run["folder"]) for run in studio.history(Path("outputs"))] == [good]
    assert caplog.text.count("is left out") == len(damage)
    assert guided_cli("list", "runs", "--json").status == 0
    for name in (*damage, "begun", "odd", "pipe"):
        said = guided_cli("show", Path("outputs") / name)
        assert said.status == 2, name
        assert "unexpected" not in said.err
        assert guided_cli("rerun", Path("outputs") / name).status == 2
    assert "a run that did not end" in guided_cli("show", begun).err
