"""Pictures remember their recipe and all their ancestors; hostile metadata does no harm."""

from __future__ import annotations

import io
import logging
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from guided.core import lineage
from guided.core.files import write_bytes
from guided.core.lineage import LINEAGE_CHUNK, LONGEST_TEXT, RECIPE_CHUNK, lineage_of, png_bytes
from guided.errors import ImageError


def _picture(shade: int = 0) -> Image.Image:
    return Image.new("RGB", (8, 8), (shade, 10, 20))


def _saved(path: Path, recipe: str, *parents: Path, **note: object) -> Path:
    line = lineage_of(path.name, recipe, parents=parents, note=note)
    return write_bytes(path, png_bytes(_picture(len(recipe)), line))


def test_a_chain_of_five_edits_recovers_all_recipes(tmp_path: Path) -> None:
    write_bytes(tmp_path / "me.png", png_bytes(_picture()))
    last = tmp_path / "me.png"
    for number in range(5):
        last = _saved(tmp_path / f"{number}.png", f'task = "edit"\nn = {number}\n', last, n=number)
    known = lineage.read(last)
    assert known is not None
    assert [a.name for a in known.chain] == ["me.png", *(f"{n}.png" for n in range(5))]
    assert [a.recipe for a in known.chain[1:]] == [f'task = "edit"\nn = {n}\n' for n in range(5)]
    assert [dict(a.note) for a in known.chain[1:]] == [{"n": n} for n in range(5)]
    ids = [a.id for a in known.chain]
    assert [a.parents for a in known.chain[1:]] == [(i,) for i in ids[:-1]]
    with Image.open(last) as image:
        assert image.info[RECIPE_CHUNK] == 'task = "edit"\nn = 4\n'


def test_a_picture_of_two_parents_keeps_a_shared_ancestor_once(tmp_path: Path) -> None:
    root = _saved(tmp_path / "root.png", "r")
    left, right = (_saved(tmp_path / f"{side}.png", side, root) for side in ("left", "right"))
    both = lineage.read(_saved(tmp_path / "both.png", "both", left, right))
    assert both is not None
    assert [a.name for a in both.chain] == ["root.png", "left.png", "right.png", "both.png"]
    assert len(both.picture.parents) == 2


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    line = lineage_of("a.png", "recipe ✓ \n", note={"b": 1, "a": [1, 2]})
    assert png_bytes(_picture(), line) == png_bytes(_picture(), line)
    path = write_bytes(tmp_path / "a.png", png_bytes(_picture(), line))
    assert lineage.read(path) == line


def test_a_parent_that_is_gone_keeps_its_name(tmp_path: Path) -> None:
    line = lineage_of("a.png", "r", parents=[tmp_path / "gone.png"])
    assert [a.name for a in line.ancestors] == ["gone.png"]


def test_a_very_long_lineage_still_opens(tmp_path: Path) -> None:
    recipe = "about = '" + "x" * 50_000 + "'\n"
    last = _saved(tmp_path / "0.png", recipe)
    for number in range(1, 40):
        last = _saved(tmp_path / f"{number}.png", recipe + f"n = {number}\n", last)
    known = lineage.read(last)
    assert known is not None
    assert known.picture.recipe.endswith("n = 39\n")
    assert known.ancestors[-1].recipe.endswith("n = 38\n")
    assert len(known.ancestors) == 39  # the oldest gave up their recipes, not their places
    with Image.open(last) as image:
        image.load()


def test_other_files_have_no_lineage(tmp_path: Path) -> None:
    plain = write_bytes(tmp_path / "a.png", png_bytes(_picture()))
    assert lineage.read(plain) is None
    assert lineage.read(write_bytes(tmp_path / "b.txt", b"no picture")) is None
    assert lineage.read(write_bytes(tmp_path / "c.png", b"")) is None
    with pytest.raises(ImageError, match="Cannot read"):
        lineage.read(tmp_path / "absent.png")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _with_chunk(kind: bytes, data: bytes) -> bytes:
    """A good PNG with one more chunk after its header."""
    good = png_bytes(_picture())
    return good[:33] + _chunk(kind, data) + good[33:]


_KEY = LINEAGE_CHUNK.encode()
_DEEP = b"[" * 200_000
HOSTILE = {
    "not json": _with_chunk(b"tEXt", _KEY + b"\0{broken"),
    "deep json": _with_chunk(b"tEXt", _KEY + b"\0" + _DEEP),
    "list": _with_chunk(b"tEXt", _KEY + b"\0[1, 2]"),
    "null": _with_chunk(b"tEXt", _KEY + b"\0null"),
    "no picture": _with_chunk(b"tEXt", _KEY + b'\0{"version": 1}'),
    "wrong types": _with_chunk(b"tEXt", _KEY + b'\0{"picture": {"id": 3, "name": []}}'),
    "wrong parents": _with_chunk(b"tEXt", _KEY + b'\0{"picture": {"id": "a", "parents": [1]}}'),
    "wrong note": _with_chunk(b"tEXt", _KEY + b'\0{"picture": {"id": "a", "note": 1}}'),
    "huge number": _with_chunk(b"tEXt", _KEY + b'\0{"picture": ' + b"9" * 5000 + b"}"),
    "zip bomb": _with_chunk(b"zTXt", _KEY + b"\0\0" + zlib.compress(bytes(50_000_000))),
    "itxt bomb": _with_chunk(b"iTXt", _KEY + b"\0\1\0\0\0" + zlib.compress(bytes(50_000_000))),
    "bad zip": _with_chunk(b"zTXt", _KEY + b"\0\0not zlib"),
    "short itxt": _with_chunk(b"iTXt", _KEY + b"\0\1"),
    "bad utf-8": _with_chunk(b"iTXt", _KEY + b"\0\0\0\0\0\xff\xfe"),
    "empty": _with_chunk(b"tEXt", _KEY),
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_metadata_is_ignored_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    path = write_bytes(tmp_path / "a.png", HOSTILE[what])
    began = time.process_time()
    with caplog.at_level(logging.WARNING, logger="guided"):
        assert lineage.read(path) is None
    assert time.process_time() - began < 1
    assert "is ignored" in caplog.text


def test_chunks_that_lie_about_their_length_do_no_harm(tmp_path: Path) -> None:
    good = png_bytes(_picture())
    for length in (2**31, 2**32 - 1, 10**6):
        lie = good[:33] + length.to_bytes(4, "big") + b"tEXt" + _KEY + b"\0{}"
        assert lineage.read(write_bytes(tmp_path / "a.png", lie)) is None
    many = good[:33] + _chunk(b"tEXt", b"x\0y") * 150_000
    began = time.process_time()
    assert lineage.read(write_bytes(tmp_path / "b.png", many)) is None
    assert time.process_time() - began < 2


def test_html_in_a_prompt_stays_text(tmp_path: Path) -> None:
    recipe = 'prompt = "<script>alert(1)</script>"\n'
    known = lineage.read(_saved(tmp_path / "a.png", recipe))
    assert known is not None
    assert known.picture.recipe == recipe


def test_a_recipe_alone_is_a_lineage(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(RECIPE_CHUNK, 'task = "portraits"\n')
    buffer = io.BytesIO()
    _picture().save(buffer, "PNG", pnginfo=info)
    known = lineage.read(write_bytes(tmp_path / "a.png", buffer.getvalue()))
    assert known is not None
    assert known.picture.recipe == 'task = "portraits"\n'
    assert known.ancestors == ()


def test_what_we_write_fits_what_pillow_reads() -> None:
    assert LONGEST_TEXT < PngImagePlugin.MAX_TEXT_CHUNK
