"""Pictures that remember: the recipe and the whole ancestry of edits inside a PNG's text.

A PNG holds two text chunks: ``guided.recipe`` (the recipe as TOML, for people and for rerunning)
and ``guided.lineage`` (JSON: this picture's note and every ancestor, each with its own recipe).
What is read back is never trusted: sizes are limited before anything is unpacked, and whatever
does not parse is left out with a line saying so.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from guided.core.reading import RECORD, parse_json
from guided.core.text import json_text
from guided.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

RECIPE_CHUNK = "guided.recipe"
LINEAGE_CHUNK = "guided.lineage"
#: Pillow refuses pictures with a longer text, so no chunk we write may be longer (in bytes).
LONGEST_TEXT = 900_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS = 100_000
_MOST_ANCESTORS = 1000


@dataclass(frozen=True)
class Ancestor:
    """One picture of a lineage.

    ``id`` names its content (a digest), ``name`` is its file name, ``recipe`` the TOML that made
    it ("" for a picture that came from elsewhere), ``note`` plain data, ``parents`` the ids it
    was made from, ``setting`` what must be equal to get the same pixels (threads, versions, the
    sha256 of weights), ``signature`` what its maker's computer knows its recipe by ("" where it
    was not signed).
    """

    id: str
    name: str
    recipe: str = ""
    note: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    setting: Mapping[str, Any] = field(default_factory=dict)
    signature: str = ""


@dataclass(frozen=True)
class Lineage:
    """A picture and all it came from; ``ancestors`` are in order, the oldest first."""

    picture: Ancestor
    ancestors: tuple[Ancestor, ...] = ()

    @property
    def chain(self) -> tuple[Ancestor, ...]:
        """The ancestors, then the picture itself."""
        return (*self.ancestors, self.picture)


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def origin(path: Path) -> Ancestor:
    """The ancestor that stands for a file without a lineage: its name and its content's digest.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ImageError(f"Cannot read {path}: {error.strerror or error}.") from error
    return Ancestor(digest, path.name)


def lineage_of(
    name: str,
    recipe: str,
    *,
    parents: Sequence[Path] = (),
    note: Mapping[str, Any] | None = None,
    setting: Mapping[str, Any] | None = None,
    signature: str = "",
) -> Lineage:
    """The lineage of a new picture made by ``recipe`` from the files ``parents``.

    Parents that carry a lineage hand it on whole; others become its origins (by name alone where
    the file is gone).  A picture that came into the family twice is kept once.
    """
    family: dict[str, Ancestor] = {}
    ids = []
    for path in parents:
        try:
            known = read(path)
            chain = known.chain if known else (origin(path),)
        except ImageError:
            chain = (Ancestor(_digest(str(path)), path.name),)
        family.update((ancestor.id, ancestor) for ancestor in chain)
        ids.append(chain[-1].id)
    kept = dict(note or {})
    digest = _digest(name, recipe, kept, ids)
    own = Ancestor(digest, name, recipe, kept, tuple(ids), dict(setting or {}), signature)
    return Lineage(own, tuple(family.values()))


# --------------------------------------------------------------------------- writing


def _plain(ancestor: Ancestor) -> dict[str, Any]:
    signature = {"signature": ancestor.signature} if ancestor.signature else {}
    return {
        "id": ancestor.id,
        "name": ancestor.name,
        "recipe": ancestor.recipe,
        "note": dict(ancestor.note),
        "parents": list(ancestor.parents),
        "setting": dict(ancestor.setting),
        **signature,
    }


def _as_json(lineage: Lineage) -> str:
    """The lineage as JSON; the oldest ancestors lose their recipes, then go, if it is too long."""
    ancestors = list(lineage.ancestors[-_MOST_ANCESTORS:])
    shortened = 0
    while True:
        document = {
            "version": 1,
            "picture": {**_plain(lineage.picture), "recipe": ""},
            "ancestors": [_plain(ancestor) for ancestor in ancestors],
        }
        text = json_text(document, default=str, allow_nan=True)
        if len(text.encode()) <= LONGEST_TEXT or not ancestors:
            return text
        if shortened < len(ancestors):
            some = slice(shortened, shortened + 1 + len(ancestors) // 10)
            ancestors[some] = [replace(a, recipe="", note={}, setting={}) for a in ancestors[some]]
            shortened = some.stop
        else:
            ancestors = ancestors[len(ancestors) // 2 :]
            shortened = len(ancestors)


def png_bytes(image: Image.Image, lineage: Lineage | None = None) -> bytes:
    """The picture as a PNG file, with its recipe and lineage in text chunks.

    The same picture and lineage give the same bytes.
    """
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    if lineage is not None:
        info.add_itxt(RECIPE_CHUNK, lineage.picture.recipe, zip=False)
        info.add_itxt(LINEAGE_CHUNK, _as_json(lineage), zip=True)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


# --------------------------------------------------------------------------- reading


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and data of the text chunks of a PNG file; the others are stepped over."""
    if file.read(8) != _SIGNATURE:
        return
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= LONGEST_TEXT:
            yield kind, file.read(length)
            file.seek(4, io.SEEK_CUR)
        else:
            file.seek(length + 4, io.SEEK_CUR)


def _unpacked(data: bytes) -> bytes:
    """Inflated data, at most LONGEST_TEXT bytes."""
    inflate = zlib.decompressobj()
    text = inflate.decompress(data, LONGEST_TEXT)
    if inflate.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {LONGEST_TEXT} bytes")
    return text


def _text(kind: bytes, data: bytes) -> str:
    """The text of a chunk without its keyword (the keyword and its zero byte are gone)."""
    if kind == b"tEXt":
        return data.decode("latin-1")
    if kind == b"zTXt":
        return _unpacked(data[1:]).decode("latin-1")
    packed = data[:1] == b"\x01"
    body = data[2:].split(b"\0", 2)[2]
    return (_unpacked(body) if packed else body).decode("utf-8")


def read_texts(path: Path) -> dict[str, str]:
    """Our text chunks of a PNG by keyword; empty for any other file.

    Chunks that are too long or broken are left out, with a warning in the log.

    Raises:
        ImageError: the file cannot be read.
    """
    texts: dict[str, str] = {}
    wanted = {name.encode(): name for name in (RECIPE_CHUNK, LINEAGE_CHUNK)}
    try:
        with path.open("rb") as file:
            for kind, data in _chunks(file):
                keyword, _, rest = data.partition(b"\0")
                if keyword not in wanted:
                    continue
                try:
                    texts[wanted[keyword]] = _text(kind, rest)
                except (ValueError, IndexError, zlib.error) as error:
                    logger.warning("%s: its %s is ignored: %s", path, wanted[keyword], error)
    except OSError as error:
        raise ImageError(f"Cannot read {path}: {error.strerror or error}.") from error
    return texts


def _ancestor(data: Any) -> Ancestor:
    """An ancestor from JSON, every field of the type it should have."""
    if not isinstance(data, dict):
        raise ValueError("an ancestor is not a table")
    texts = [data.get(key, "") for key in ("id", "name", "recipe", "signature")]
    parents = data.get("parents", [])
    tables = [data.get(key, {}) for key in ("note", "setting")]
    if not all(isinstance(text, str) for text in texts) or not texts[0]:
        raise ValueError("an ancestor's id, name, recipe or signature is not text")
    if not isinstance(parents, list) or not all(isinstance(item, str) for item in parents):
        raise ValueError("an ancestor's parents are not a list of ids")
    if not all(isinstance(table, dict) for table in tables):
        raise ValueError("an ancestor's note or setting is not a table")
    return Ancestor(texts[0], texts[1], texts[2], tables[0], tuple(parents), tables[1], texts[3])


def _parsed(text: str, recipe: str) -> Lineage:
    document = parse_json(text, **RECORD)
    if not isinstance(document, dict) or not isinstance(document.get("ancestors", []), list):
        raise ValueError("it is not a lineage")
    listed = document.get("ancestors", [])[-_MOST_ANCESTORS:]
    picture = replace(_ancestor(document.get("picture")), recipe=recipe)
    return Lineage(picture, tuple(_ancestor(item) for item in listed))


def read(path: Path) -> Lineage | None:
    """The lineage a picture carries, or None if it has none that can be understood.

    Raises:
        ImageError: the file cannot be read.
    """
    texts = read_texts(path)
    recipe = texts.get(RECIPE_CHUNK, "")
    if LINEAGE_CHUNK in texts:
        try:
            return _parsed(texts[LINEAGE_CHUNK], recipe)
        except ValueError as error:
            logger.warning("%s: its lineage is ignored: %s", path, error)
    if recipe:
        return Lineage(Ancestor(_digest(path.name, recipe), path.name, recipe))
    return None
