from __future__ import annotations

import io
import logging
import shutil
import tarfile
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from guided.core.reading import LARGEST
from guided.errors import UsageError
from guided.training.captioned_images import (
    SOON,
    check_folder,
    checked_entries,
    entries_of,
    images_digest,
)
from guided.training.captions import rows, survey
from guided.training.data_identity import content_digests, expect_same, files_digest, model_digest


def image(path: Path, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), color).save(path)
    return path


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.txt", ("one", "", " two ")),
        ("a.caption", ("one", "two")),
        ("t.jsonl", ('{"file": "a.png", "captions": ["one", "two", "one"]}',)),
        (
            "t.jsonl",
            ('{"file_name": "a.png", "text": "one"}', '{"file": "a.png", "caption": "two"}'),
        ),
        ("t.jsonl", ('{"file": "a.png", "captions": [{"text": "one"}, {"text": "two"}]}',)),
        ("t.csv", ("\ufefffile,caption", "a.png,one", "a.png,two")),
        ("t.csv", ("Caption,File_Name,extra", "one,a.png,5", '"two",a.png,6')),
        ("t.tsv", ("file\ttext", "a.png\tone", "a.png\ttwo")),
    ],
)  # fmt: skip
def test_every_form_of_captions(tmp_path: Path, name: str, lines: tuple[str, ...]) -> None:
    image(tmp_path / "in" / "a.png")
    written(tmp_path / "in" / name, *lines)
    assert rows(tmp_path) == [(tmp_path / "in" / "a.png", ("one", "two"))]


def test_what_is_left_out_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        image(tmp_path / f"{name}.png")
    image(tmp_path / ".thumbs" / "a.png")
    written(tmp_path / ".thumbs" / "a.txt", "hidden")
    written(tmp_path / "steps.jsonl", '{"index": 1}')
    written(tmp_path / "losses.csv", "step,loss", "1,2")
    written(tmp_path / "b.txt", "beaten by the table")
    table = ('{"file": "b.png", "text": "b"}', '{"file": "gone.png", "text": "x"}', "")
    written(tmp_path / "t.jsonl", *table, '{"file": "c.png", "captions": []}')
    with caplog.at_level(logging.WARNING, "guided"):
        assert rows(tmp_path) == [(tmp_path / "b.png", ("b",))]
    assert survey(tmp_path).absent == ["t.jsonl, line 2: gone.png"]
    assert [file.name for file in survey(tmp_path).uncaptioned] == ["a.png", "c.png"]
    assert "t.jsonl, line 2: gone.png" in caplog.text
    assert "images without a caption, left out (2): a.png, c.png" in caplog.text
    assert "left out (1): losses.csv, line 2: it names no file" in caplog.text


def test_a_training_says_once_what_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        written(image(tmp_path / f"{number}.png").with_suffix(".txt"), f"picture {number}")
    image(tmp_path / "none.png")
    with caplog.at_level(logging.WARNING, "guided"):
        check_folder(tmp_path, "clip")  # before the models are loaded
        assert not caplog.text
        assert len(checked_entries(tmp_path, "clip")) == 8  # the training itself
    assert caplog.text.count("images without a caption, left out (1): none.png") == 1


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("t.jsonl", ("", '{"file": 3'), r"t\.jsonl, line 2: not JSON"),
        ("t.jsonl", ("5", "[1]"), r"t\.jsonl, line 1: not a JSON object"),
        ("t.jsonl", ("[1]",), "entry 1: not a JSON object"),
        ("t.csv", ("file,caption", 'a.png,"one', "b.png,two", ""), "line 3: a quotation mark"),
        ("t.jsonl", ('{"caption": "x"}',), "line 1: it names no file"),
        ("t.jsonl", ('{"file": "a.png"}',), "line 1: it has no text, captions or caption"),
        ("t.jsonl", ('{"file": "a.png", "caption": 5}',), "line 1: the caption 5 is not text"),
        ("t.csv", ("file,caption", ",y"), r"t\.csv, line 2: it names no file"),
        ("t.csv", ("file,caption", "a.png,a red, big house"), "line 2: it has 3 values for 2 colu"),
    ],
)
def test_wrong_lines_are_named(
    tmp_path: Path, name: str, lines: tuple[str, ...], message: str
) -> None:
    image(tmp_path / "a.png")
    written(tmp_path / name, *lines)
    with pytest.raises(UsageError, match=message):
        rows(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / "a.txt").write_bytes(b"one\ntw\xff")
    with pytest.raises(UsageError, match=r"a\.txt, line 2: not UTF-8"):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "captions"),
    [
        ("t.csv", "file,caption\r\na.png," + "x" * 300_000 + "\r\n", ("x" * 300_000,)),
        ("t.csv", 'file,caption\na.png,"two\nlines, one caption"\n', ("two lines, one caption",)),
        ("t.jsonl", '{"file": "a.png", "caption": "one\u2028\x85text"}\n', ("one text",)),
        ("t.jsonl", '{"file": "a.png", "caption": "one"}\r{"file": "a.png", "caption": "two"}\r',
         ("one", "two")),
    ],
)  # fmt: skip
def test_captions_may_be_long_and_hold_any_character(
    tmp_path: Path, name: str, text: str, captions: tuple[str, ...]
) -> None:
    image(tmp_path / "a.png")
    (tmp_path / name).write_bytes(text.encode())
    assert rows(tmp_path) == [(tmp_path / "a.png", captions)]


def test_a_row_that_gives_nothing_is_named_and_the_others_train(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "a.png")
    table = ("file,caption", "a.png,a red, big house", ",y", "a.png,good")
    written(tmp_path / "t.csv", *table)
    written(tmp_path / "other.jsonl", '{"prompt": "x", "completion": "y"}')
    (tmp_path / "log.csv").write_bytes(b"time,place\n1,Z\xfcrich\n")
    (tmp_path / "._config.json").write_bytes(b"\0\5\x16\7")
    written(tmp_path / "run.json", "{")
    with caplog.at_level(logging.WARNING, "guided"):
        assert rows(tmp_path) == [(tmp_path / "a.png", ("good",))]
    assert "rows without a caption (2): t.csv, line 2: it has 3 values for 2 columns" in caplog.text
    assert "t.csv, line 3: it names no file" in caplog.text
    assert "tables without captions of images, left out (3)" in caplog.text
    assert "other.jsonl, line 1: it names no file" in caplog.text


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "/no/such/place.png", "../gone.png"])
def test_names_that_lead_nowhere_are_counted(tmp_path: Path, name: str) -> None:
    image(tmp_path / "a.png")
    table = (f'{{"file": "{name}", "caption": "b"}}', '{"file": "a.png", "caption": "a"}')
    written(tmp_path / "t.jsonl", *table)
    assert survey(tmp_path).absent == [f"t.jsonl, line 1: {name[:200]}"]
    assert rows(tmp_path) == [(tmp_path / "a.png", ("a",))]


def test_an_image_elsewhere_without_a_caption_is_none_of_the_folders(tmp_path: Path) -> None:
    outside = image(tmp_path / "outside.png")
    image(tmp_path / "in" / "a.png")
    table = (f'{{"file": "{outside}", "caption": ""}}', '{"file": "a.png", "caption": "a"}')
    written(tmp_path / "in" / "t.jsonl", *table)
    assert survey(tmp_path / "in").uncaptioned == []
    assert rows(tmp_path / "in") == [(tmp_path / "in" / "a.png", ("a",))]


def shard(path: Path, members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def test_shards_have_the_captions_of_tables(tmp_path: Path) -> None:
    texts = {
        "a.json": b'{"captions": "one text"}',
        "b.json": b'{"caption": null}',
        "c.json": b'{"captions": ["c", {"text": "d"}]}',
        "d.json": b"[1]",
        "e.txt": b"\xef\xbb\xbfe\n",
    }
    shard(tmp_path / "s.tar", texts | {f"{name}.png": b"" for name in "abcde"})
    captions = {entry.name[-5:]: entry.captions for entry in entries_of(tmp_path)}
    assert captions == {"a.png": ("one text",), "c.png": ("c", "d"), "e.png": ("e",)}


def test_shards_unpack_nothing(tmp_path: Path) -> None:
    shard(tmp_path / "s.tar", {"a.png": bytes(1 << 20), "a.txt": b"a"}, "w:gz")
    with pytest.raises(UsageError, match="cannot be read"):
        entries_of(tmp_path)
    shard(tmp_path / "s.tar", {"a.png": b"", "a.txt": bytes(LARGEST + 1)})
    with pytest.raises(UsageError, match=rf"a\.txt has {LARGEST + 1} bytes"):
        entries_of(tmp_path)


def test_folders_that_teach_nothing_are_refused_in_one_sentence(tmp_path: Path) -> None:
    def refused(message: str, objective: str = "contrastive") -> None:
        with pytest.raises(UsageError, match=message):
            check_folder(tmp_path / "in", objective)

    refused("There is no folder")
    (tmp_path / "in").mkdir()
    refused("There are no images")
    for number in range(6):
        image(tmp_path / "in" / f"{number}.png")
    refused("None of the 6 images in .* has a caption")
    table = written(tmp_path / "in" / "t.csv", "file,caption", "x.png,x", "y.png,y")
    refused("None of the 2 captions .* t.csv, line 2: x.png, t.csv, line 3: y.png")
    written(table, "file,caption", "0.png,a", "1.png,b", "2.png,c")
    refused("Captioned images in .*: 3; this training needs at least 4")
    check_folder(tmp_path / "in", "text_gan")
    written(table, "file,caption", *(f"{n}.png,The same" for n in range(5)))
    refused("All 5 images in .* have the same caption")
    written(table, "file,caption", *(f"{n}.png,{n}" for n in range(6)))
    check_folder(tmp_path / "in", "contrastive")
    whole = (tmp_path / "in" / "3.png").read_bytes()
    (tmp_path / "in" / "3.png").write_bytes(whole[:45])
    (tmp_path / "in" / "4.png").write_bytes(b"<html>")
    refused(r"2 of 6 captioned images cannot be read: 3\.png, 4\.png")
    assert SOON >= 6


# --------------------------------------------------------------------------- identity


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path / "cache" / "models"))
    return tmp_path / "cache" / "contents"


def test_the_same_images_and_captions_anywhere_are_the_same(tmp_path: Path, cache: Path) -> None:
    here = tmp_path / "here"
    for name, color in (("a", "red"), ("b", "blue")):
        image(here / f"{name}.png", color)
        written(here / f"{name}.txt", f"a {color} card")
    first = images_digest(here)
    there = tmp_path / "there"
    shutil.copytree(here, there)
    for file in there.iterdir():
        file.touch()
    image(there / "uncaptioned.png")
    assert images_digest(there) == first
    for change in (
        lambda: written(there / "a.txt", "a red card!"),
        lambda: written(there / "a.txt", "a red", "card"),
        lambda: image(there / "b.png", "green"),
        lambda: (there / "b.png").rename(there / "c.png") and written(there / "c.txt", "x"),
    ):
        before = images_digest(there)
        change()
        assert images_digest(there) != before


def test_contents_are_read_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    file = written(tmp_path / "a.bin", "one")
    os.utime(file, ns=(10**18, 10**18))
    digest = content_digests([file])
    with monkeypatch.context() as patch:
        patch.setattr("guided.training.data_identity.fresh_digest", lambda path: "read again")
        assert content_digests([file]) == digest
        os.utime(file, ns=(10**18, 10**18 + 1))
        assert content_digests([file]) == ["read again"]
    for store in cache.iterdir():
        store.write_text("[")
    assert content_digests([file]) == digest
    written(file, "two")  # as long, and so new that it may change within its time stamp
    assert content_digests([file]) != digest
    with pytest.raises(UsageError, match="cannot be read"):
        content_digests([tmp_path / "gone"])


def test_models_are_known_by_their_content(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    written(folder / "model.safetensors", "weights")
    written(folder / "card.toml", "name")
    name = f"local-dir:{folder}"
    first = model_digest(name, "scorer")
    written(folder / "card.toml", "other name")
    assert model_digest(name, "scorer") == first
    assert first == files_digest(folder, [folder / "model.safetensors"])
    written(folder / "model.safetensors", "changed")
    assert model_digest(name, "scorer") != first
    assert model_digest("clip", "scorer") not in ("", model_digest("identity", "identity"))
    assert model_digest("no such model", "scorer") == ""


def test_a_training_that_began_with_others_is_not_gone_on_with(tmp_path: Path) -> None:
    from guided.errors import CannotDo

    names = {"data": "FOLDER", "scorer": "clip", "start": "start"}
    expect_same({}, {"scorer": "1"}, names, tmp_path)  # an older release noted no models
    expect_same({"data": "1", "start": "2"}, {"data": "1"}, names, tmp_path)  # the start is gone
    for before, now in (({"data": "1"}, {"data": "2"}), ({}, {"data": "2"}), ({"data": "1"}, {})):
        with pytest.raises(CannotDo, match=r"other data than FOLDER holds now.*--set name="):
            expect_same(before, now, names, tmp_path)
    with pytest.raises(CannotDo, match="began with another scorer than clip is now"):
        expect_same({"scorer": "1"}, {"scorer": "2"}, names, tmp_path)


# --------------------------------------------------------------------------- other programs


COCO = """{"images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
"annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 7, "caption": "two"},
{"image_id": 9, "caption": "lost"}]}"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions_val.json", COCO),
        ("t.json", '[{"file_name": "a.png", "text": ["one", "two"]}]'),
        ("t.json", '{"a.png": ["one", "two"]}'),
        ("a.json", '{"url": "http://x", "caption": "one\\ttwo"}'),
        ("t.jsonl", '{"image": "in\\\\a.png", "captions": {"text": ["one", "two"]}}'),
        ("t.csv", "path;text\r\nC:\\data\\in\\A.PNG;one\r\n/x/a.png;\r\nin/a.png;two\r\n"),
    ],
)
def test_tables_of_other_programs(tmp_path: Path, name: str, text: str) -> None:
    image(tmp_path / "in" / "a.png")
    image(tmp_path / "in" / "b.png")
    place = tmp_path if "in" in text and "images" not in text else tmp_path / "in"
    (place / name).write_bytes(text.encode())
    (found,) = rows(tmp_path)
    assert found == (tmp_path / "in" / "a.png", found.captions)
    assert " ".join(found.captions) == "one two"
    if text is COCO:
        assert survey(tmp_path).faults == [f"in/{name}, annotation 3: it belongs to no image"]


def test_texts_in_a_named_encoding(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    (tmp_path / "a.txt").write_bytes("Zürich".encode("cp1252"))
    written(tmp_path / "b.txt", "Genève")
    with pytest.raises(UsageError, match=r"a\.txt, line 1: not UTF-8.*encoding=NAME.*cp1252"):
        rows(tmp_path)
    assert [captions for _, captions in rows(tmp_path, "cp1252")] == [("Zürich",), ("Genève",)]
    with pytest.raises(UsageError, match=r"a\.txt, line 1: not UTF-8 and not SHIFT_JIS"):
        rows(tmp_path, "shift_jis")
    assert images_digest(tmp_path, "cp1252") != images_digest(tmp_path, "cp1251")


def test_shards_with_folders_and_foreign_members(tmp_path: Path) -> None:
    members = {"./a.png": b"", "./a.txt": b"a", "x/b.png": b"", "x/b.json": b"{", "x/._b.txt": b""}
    shard(tmp_path / "s.tar", members)
    assert [entry.captions for entry in entries_of(tmp_path)] == [("a",)]
