"""Every verb with every kind of file name: the answer is valid JSON that names the very file."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from guided.core import lineage
from tests.helpers.tiny_clip import bundle  # noqa: F401
from tests.helpers.tiny_language import write_language

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")

_PAIR = "caf\u00e9"
NAMES = {
    "not UTF-8": b"caf\xe9.png",
    "all bytes": bytes(b for b in range(1, 256) if b != ord("/"))[:200] + b".png",
    "a line break": b"two\nlines\r.png",
    "a tab": b"a\tb.png",
    "quotes": b'it\'s "so" $(x) `y` \\z.png',
    "a leading dash": b"--json.png",
    "a leading tilde": b"~nobody.png",
    "turned": "\u202egnp.\u2066x\u200f.png".encode(),
    "255 bytes": "é".encode() * 125 + b"x.png",
    "emoji": "👩‍👩‍👧🏳️‍🌈.png".encode(),
    "composed": unicodedata.normalize("NFC", _PAIR).encode() + b".png",
    "decomposed": unicodedata.normalize("NFD", _PAIR).encode() + b".png",
    "line separators": "a\u2028b\u0085c.png".encode(),
    "stand-in": "\U0010dc00\U0010dce9.png".encode(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one image of every name, each of another colour."""
    place = tmp_path / "in"
    place.mkdir()
    for number, name in enumerate(NAMES.values()):
        image = Image.new("RGB", (24, 24), (17 * number, 250 - 17 * number, 40))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        (place / os.fsdecode(name)).write_bytes(buffer.getvalue())
    return place


@pytest.fixture
def say(
    guided_cli: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """A command line in the folder of the images."""
    monkeypatch.chdir(folder)
    return guided_cli


def all_files(folder: Path) -> set[str]:
    return {str(folder / os.fsdecode(name)) for name in NAMES.values()}


def given() -> list[str]:
    """The names as they are typed in that folder."""
    return [os.fsdecode(name) for name in NAMES.values()]


def check_utf8(folder: Path) -> None:
    """Every text file that a run wrote is UTF-8; JSON lines are as many as rows."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".toml", ".csv", ".html"):
            path.read_bytes().decode()
        if path.suffix == ".jsonl":
            for line in path.read_text().splitlines():
                json.loads(line)


@pytest.mark.parametrize("verb", [("score", "--text", "a\nhat"), ("classify", "--label", "x",
                                                                  "--label", "y")])  # fmt: skip
def test_scores(say: Any, folder: Path, bundle: Path, verb: Any, tmp_path: Path) -> None:  # noqa: F811
    name, *words = verb
    words += ["--scorer", f"local-dir:{bundle}", "--out", str(tmp_path / "out"), "--json"]
    said = say(name, *words, "--", *given())
    assert said.status == 0, said.err
    assert {row["file"] for row in said.answer["results"]} == all_files(folder)
    check_utf8(tmp_path / "out")
    people = say(name, *words[:-3], "--", *given())
    people.out.encode()
    assert people.status == 0


def test_index_and_search(say: Any, folder: Path, bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    place, scorer = tmp_path / "index", f"local-dir:{bundle}"
    words = ["index", str(folder), "--index", str(place), "--scorer", scorer, "--json"]
    said = say(*words)
    assert said.answer == {"added": 14, "skipped": 0, "removed": 0, "total": 14}, said.err
    assert say(*words).answer["skipped"] == 14
    find = ["search", "--index", str(place), "--scorer", scorer, "--top", 20, "--json"]
    hits = say(*find, "--out", str(tmp_path / "out"), "a hat")
    assert {row["file"] for row in hits.answer["results"]} == all_files(folder)
    check_utf8(tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "results.csv").read_text())))
    assert len(rows) == 14
    for name in given()[:4]:
        rows = say(*find, "--out", str(tmp_path / "hits"), "--", name).answer["results"]
        near = {row["file"] for row in rows if row["score"] > rows[0]["score"] - 1e-3}
        assert str(folder / name) in near
    (folder / os.fsdecode(b"caf\xe9.png")).unlink()
    (folder / "two\nlines\r.png").write_bytes(b"no image")
    changed = say(*words)
    assert (changed.answer["removed"], changed.answer["total"]) == (1, 12)
    assert changed.answer["errors"][0]["file"] == str(folder / "two\nlines\r.png")


def test_captions(say: Any, folder: Path, bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    language = write_language(tmp_path / "language")
    out = tmp_path / "out"
    words = ["caption", "--scorer", f"local-dir:{bundle}", "--language", f"local-dir:{language}",
             "--beams", 1, "--length", 2, "--mode", "fuse", "--json", "--out", str(out),
             "--sheet", "--relevance"]  # fmt: skip
    (folder / os.fsdecode(b"bad\xff.png")).write_bytes(b"no image")
    said = say(*words, "--", str(folder))
    assert {row["file"] for row in said.answer["results"]} == all_files(folder)
    assert said.answer["errors"][0]["file"] == str(folder / os.fsdecode(b"bad\xff.png"))
    again = say(*words, "--", str(folder))
    assert again.answer == said.answer
    lines = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert {line["file"] for line in lines if "captions" in line} == all_files(folder)
    check_utf8(out)
    parents = {
        ancestor.name
        for path in (out / "relevance").glob("*.png")
        for ancestor in lineage.read(path).ancestors
    }
    assert parents <= set(given())
    shown = say("show", out / "sheet.png", "--json")
    assert {a["name"] for a in shown.answer["lineage"][:-1]} == set(given())
    say("show", out / "sheet.png").out.encode()


def test_recipes_and_errors(say: Any, folder: Path, bundle: Path) -> None:  # noqa: F811
    model = f"scorer='local-dir:{bundle}'"
    for name in given():
        shown = say("score", "--text", "x", "--print-recipe", "--", name)
        shown.out.encode()
        (folder.parent / "r.toml").write_text(shown.out)
        said = say("run", folder.parent / "r.toml", "--set", model, "--json")
        assert said.answer["results"][0]["file"] == str(folder / name), said.err
        gone = say("score", "--scorer", f"local-dir:{bundle}", "--text", "x", "--json", "--",
                   f"no{name}"[-250:])  # fmt: skip
        assert gone.status == 1
        assert len(gone.answer["errors"]) == 1
        assert len([line for line in gone.err.splitlines() if line.startswith("guided:")]) == 1
        say("show", name).err.encode()
