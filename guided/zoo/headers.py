"""The header of a safetensors file, checked before any tensor is made.

The format is a little-endian length, a JSON table and raw bytes.  It cannot hold code, but a
crafted header can ask for gigabytes, for overlapping tensors or for a million entries; here the
table must describe the bytes exactly.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from guided.core.reading import parse_json
from guided.errors import CorruptWeights

MAX_HEADER = 16 << 20
MAX_TENSORS = 20_000
MAX_VALUES = 500_000
MAX_AXES = 16
MAX_NAME = 1000
"""Characters of a tensor's name."""
PACKED = "::int8"
"""How the names of tensors end that are int8 with a scale for each channel."""

ITEM_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16,
    "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
"""The element types that are read, with their widths."""


def read_header(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The checked table of tensors (name -> dtype, shape, data_offsets) and the metadata.

    Raises:
        CorruptWeights: a header that is too large, no JSON, or does not describe the bytes behind
            it exactly; the message names the file and the first fault.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length < 2 or length > size - 8:
            raise _fault(path, f"its header length is wrong for {size} bytes")
        if length > MAX_HEADER:
            raise _fault(path, f"its header has {length} bytes, more than {MAX_HEADER}")
        raw = file.read(length)
    table = _parse(path, raw)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _fault(path, "its metadata is not a table of texts")
    if len(table) > MAX_TENSORS:
        raise _fault(path, f"it announces {len(table)} tensors, more than {MAX_TENSORS}")
    _check_layout(path, table, size - 8 - length)
    return table, metadata


def is_packed(path: Path) -> bool:
    """Whether a file is a safetensors file with tensors of ``zoo.packing``, by its header.

    Raises:
        CorruptWeights: as ``read_header``.
    """
    return path.suffix == ".safetensors" and any(
        name.endswith(PACKED) for name in read_header(path)[0]
    )


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        table = parse_json(raw, MAX_HEADER, deepest=4, most=MAX_VALUES)
    except ValueError as error:
        raise _fault(path, f"its header is not valid JSON ({error})") from error
    if not isinstance(table, dict):
        raise _fault(path, "its header is not a table")
    return table


def _check_layout(path: Path, table: dict[str, Any], data: int) -> None:
    """Each entry well formed; together they cover the data without gap or overlap."""
    spans = []
    for name, entry in table.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _fault(path, f"the entry {name[:80]!r} is malformed")
        spans.append((*_span(path, name, entry), name))
    position = 0
    for start, end, name in sorted(spans):
        if start != position:
            raise _fault(path, f"the bytes of {name[:80]!r} overlap others or leave a gap")
        position = end
    if position != data:
        raise _fault(path, f"its tensors take {position} bytes, but {data} follow the header")


def _span(path: Path, name: str, entry: dict[str, Any]) -> tuple[int, int]:
    shape, offsets, kind = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(kind, str) or kind not in ITEM_BITS:
        raise _fault(path, f"{name[:80]!r} has the unknown element type {str(kind)[:20]!r}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets):
        raise _fault(path, f"the shape or place of {name[:80]!r} is not a list of whole numbers")
    if len(shape) > MAX_AXES or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _fault(path, f"the shape or place of {name[:80]!r} is impossible")
    if 8 * (offsets[1] - offsets[0]) != ITEM_BITS[kind] * math.prod(shape):
        raise _fault(path, f"{name[:80]!r} has another size than its shape {shape} and type {kind}")
    return offsets[0], offsets[1]


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 48
        for item in value
    )


def _fault(path: Path, what: str) -> CorruptWeights:
    return CorruptWeights(
        f"{path} is not a sound safetensors file: {what}.",
        hint="Get the file again from its source.",
    )
