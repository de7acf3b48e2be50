"""numpy arrays from files, without pickled objects."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.errors import CorruptWeights, MissingWeights, UnsafeWeights

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER = 10_000
MAX_AXES = 32
_WIDTHS = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}


def read_array(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """The array of numbers in a .npy file, such as StyleCLIP's ``fs3.npy``.

    Raises:
        MissingWeights: no such file.
        UnsafeWeights: it holds Python objects, which could run code.
        CorruptWeights: damaged, of another kind, or values that are not finite numbers.
    """
    if not path.is_file():
        raise MissingWeights(f"There is no array file {path}.", hint="Check the path.")
    read_array_header(path)
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise CorruptWeights(f"{path} is damaged or no .npy file ({error}).") from error
    if not np.isfinite(array).all():
        raise CorruptWeights(f"{path} holds values that are not finite.")
    return array  # type: ignore[no-any-return]


def read_array_header(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape and element type (``<f4``) of a .npy file whose data are as long as they say.

    Needs no numpy and reads at most 10 kB.

    Raises:
        UnsafeWeights: it holds Python objects.
        CorruptWeights: no .npy file, no numbers, or another length than its header says.
    Source: numpy.lib.format, versions 1.0 to 3.0.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(12)
            wide = head[6:7] != b"\x01"
            start = 12 if wide else 10
            length = int.from_bytes(head[8:start], "little")
            file.seek(start)
            raw = file.read(min(length, MAX_HEADER))
    except OSError as error:
        raise CorruptWeights(f"{path} cannot be read: {error.strerror or error}.") from error
    if head[:6] != b"\x93NUMPY" or head[6:7] not in (b"\x01", b"\x02", b"\x03"):
        kind = "an archive (.npz)" if head[:2] == b"PK" else "no .npy file"
        raise _damaged(path, f"it is {kind}")
    if length > MAX_HEADER or length > size - start:
        raise _damaged(path, f"its header claims {length} bytes")
    shape, kind = _parse(path, raw.decode("utf-8" if head[6] == 3 else "latin-1", "replace"))
    data = size - start - length
    if math.prod(shape) * int(kind[2:]) != data:
        raise _damaged(path, f"its shape {shape} of {kind} does not fit its {data} bytes")
    return shape, kind


def _parse(path: Path, text: str) -> tuple[tuple[int, ...], str]:
    try:
        table = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _damaged(path, "its header cannot be parsed") from error
    if not isinstance(table, dict) or set(table) != {"descr", "fortran_order", "shape"}:
        raise _damaged(path, "its header is malformed")
    kind, shape = table["descr"], table["shape"]
    if "O" in str(kind):
        raise UnsafeWeights(
            f"{path} holds Python objects instead of numbers; it was not loaded.",
            hint="Save numbers with numpy.save.",
        )
    number = (
        isinstance(kind, str)
        and kind[:1] in "<>|="
        and kind[1:2] in _WIDTHS
        and kind[2:] in map(str, _WIDTHS[kind[1]])
    )
    if not number:
        raise CorruptWeights(
            f"{path} holds no array of numbers.", hint="Save numbers with numpy.save."
        )
    sound = isinstance(shape, tuple) and len(shape) <= MAX_AXES
    if not sound or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise _damaged(path, "its shape is impossible")
    return shape, kind


def _damaged(path: Path, why: str) -> CorruptWeights:
    return CorruptWeights(
        f"{path} is damaged or no .npy file ({why}).", hint="Get the file again from its source."
    )
