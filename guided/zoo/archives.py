"""The directory of a torch archive (a zip file), checked before anything in it is unpacked.

torch stores its entries as they are, one behind the other.  A zip file can also claim gigabytes in
kilobytes (compressed entries), reuse the same bytes for thousands of entries or list a million
names; all of that is refused from the directory alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from guided.errors import CorruptWeights

MAX_ENTRIES = 50_000
MAX_DIRECTORY = 16 << 20
_END, _END64, _LOCATOR, _ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
_FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Entry:
    """A stored file of an archive: the place of its local header, its bytes."""

    offset: int
    size: int


def read_directory(file: BinaryIO, size: int) -> dict[str, Entry]:
    """The entries of a zip file of ``size`` bytes by name, in the order of its directory.

    Raises:
        CorruptWeights: no zip file, compressed or encrypted entries, entries that overlap, come
            twice or reach outside, or more than the budget.
    """
    start, length, count = _directory(file, size)
    if count > MAX_ENTRIES or length > MAX_DIRECTORY:
        raise CorruptWeights(f"it lists more than {MAX_ENTRIES} entries.")
    file.seek(start)
    data = file.read(length)
    entries: dict[str, Entry] = {}
    folded = set()
    spans = []
    at = 0
    for _ in range(count):
        name, entry, at = _entry(data, at)
        if name.casefold() in folded:
            raise CorruptWeights(f"its entry {name[:80]!r} comes twice.")
        folded.add(name.casefold())
        entries[name] = entry
        spans.append((entry.offset, entry.offset + 30 + len(name) + entry.size))
    position = 0
    for begin, end in sorted(spans):
        if begin < position or end > start:
            raise CorruptWeights("its entries overlap or reach outside the file.")
        position = end
    return entries


def content(file: BinaryIO, entry: Entry, most: int) -> bytes:
    """The bytes of an entry.

    Raises:
        CorruptWeights: more than ``most``, or damaged.
    """
    if entry.size > most:
        raise CorruptWeights(f"an entry that is no tensor has {entry.size} bytes.")
    file.seek(entry.offset)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise CorruptWeights("an entry of the archive is not where its directory says.")
    name, extra = struct.unpack("<HH", head[26:30])
    file.seek(name + extra, 1)
    data = file.read(entry.size)
    if len(data) < entry.size:
        raise CorruptWeights("an entry of the archive breaks off.")
    return data


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where the directory starts, its length in bytes and its number of entries."""
    file.seek(max(0, size - 66_000))
    tail = file.read(66_000)
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise CorruptWeights("its end is missing.")
    count, length, start, comment = struct.unpack("<HLLH", tail[at + 10 : at + 22])
    here = size - len(tail) + at
    if here + 22 + comment != size:
        raise CorruptWeights("there are bytes behind its end.")
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR:
        (here,) = struct.unpack("<Q", tail[at - 12 : at - 4])
        if here > size - 56:
            raise CorruptWeights("its end is damaged.")
        file.seek(here)
        end = file.read(56)
        if end[:4] != _END64:
            raise CorruptWeights("its end is damaged.")
        count, length, start = struct.unpack("<QQQ", end[32:56])
    if start + length != here:
        raise CorruptWeights("its directory is not where its end says.")
    return start, length, count


def _entry(data: bytes, at: int) -> tuple[str, Entry, int]:
    """One line of the directory, and where the next one starts."""
    if len(data) < at + 46 or data[at : at + 4] != _ENTRY:
        raise CorruptWeights("its directory is damaged.")
    flags, method = struct.unpack("<HH", data[at + 8 : at + 12])
    packed, plain, name_length, extra_length, comment = struct.unpack(
        "<LLHHH", data[at + 20 : at + 34]
    )
    (offset,) = struct.unpack("<L", data[at + 42 : at + 46])
    middle = at + 46 + name_length
    name = data[at + 46 : middle].decode("utf-8", "replace")
    extra = data[middle : middle + extra_length]
    plain, packed, offset = _large(extra, (plain, packed, offset))
    if method != 0 or flags & 1 or packed != plain:
        raise CorruptWeights(
            f"its entry {name[:80]!r} is compressed or encrypted, which torch never writes.",
            hint="Get the file from its source, or ask its author for safetensors.",
        )
    return name, Entry(offset, plain), middle + extra_length + comment


def _large(extra: bytes, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """Sizes beyond 4 GiB stand in a field of their own, in order, each where it is needed."""
    if _FULL not in sizes:
        return sizes
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            wide = [field[i : i + 8] for i in range(0, 8 * sizes.count(_FULL), 8)]
            if any(len(part) < 8 for part in wide):
                break
            given = iter(int.from_bytes(part, "little") for part in wide)
            first, second, third = (next(given) if n == _FULL else n for n in sizes)
            return first, second, third
        at += 4 + length
    raise CorruptWeights("its directory is damaged.")
