"""Stand-ins for what a network pickle may build: they check their arguments and keep data.

While a pickle is being read, everything it can touch is one of these, a plain container or a
plain value.  The stand-ins cannot be changed by the pickle (its BUILD and SETITEM instructions
reach any object on its stack); ``settled`` turns them into tensors, arrays and records at the end.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from guided.errors import CorruptWeights, UnsafeWeights
from guided.zoo.headers import MAX_NAME, MAX_TENSORS
from guided.zoo.pickle_machine import MAX_STEPS

MAX_DEPTH = 64

_NUMBERS = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))


@dataclass(frozen=True)
class NvidiaRecord:
    """One network object: the name of its class and what it held, as inert data.

    ``state`` has the object's attributes; in a module ``_parameters`` and ``_buffers`` are tables
    of tensors and ``_modules`` is a table of further records.
    """

    class_name: str
    state: dict[str, Any] = field(repr=False)

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers under dotted names, like a module's ``state_dict()``.

        Raises:
            CorruptWeights: nested too deep, or too many tensors.
        """
        found: dict[str, Tensor] = {}
        for name, tensor in _Modules().of(self, "", 0):
            if len(found) >= MAX_TENSORS:
                raise CorruptWeights(f"This network holds more than {MAX_TENSORS} tensors.")
            found[name] = tensor
        return found


class _Modules:
    """The tensors of nested modules by dotted name; shared modules without any are seen once."""

    def __init__(self) -> None:
        self.visits = 0
        self.barren: set[int] = set()

    def of(self, record: NvidiaRecord, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, in order."""
        if depth > MAX_DEPTH:
            raise CorruptWeights(f"This network nests its modules deeper than {MAX_DEPTH}.")
        if id(record) in self.barren:
            return
        tables = [_table(record.state.get(key)) for key in ("_parameters", "_buffers", "_modules")]
        self.visits += sum(map(len, tables))
        if self.visits > 2 * MAX_STEPS:
            raise CorruptWeights("This network repeats its modules more often than makes sense.")
        bare = True
        for table in tables[:2]:
            for name, tensor in table.items():
                if isinstance(tensor, Tensor):
                    bare = False
                    yield _joined(prefix, name), tensor
        for name, module in tables[2].items():
            if isinstance(module, NvidiaRecord):
                for leaf in self.of(module, _joined(prefix, name) + ".", depth + 1):
                    bare = False
                    yield leaf
        if bare:
            self.barren.add(id(record))


def _joined(prefix: str, name: object) -> str:
    joined = f"{prefix}{name}"
    if len(joined) > MAX_NAME:
        raise CorruptWeights(f"This network has a name longer than {MAX_NAME}.")
    return joined


def _table(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


class _Sealed:
    """An object whose content the pickle can neither see nor change."""

    __slots__ = ("_content",)
    _content: Any

    def __init__(self, content: Any) -> None:
        object.__setattr__(self, "_content", content)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise UnsafeWeights("it tries to change an object it was given.")

    def __setstate__(self, state: object) -> None:
        raise UnsafeWeights("it tries to change an object it was given.")

    def __reduce__(self) -> NoReturn:
        raise TypeError("stand-ins are never pickled")


class Constructor(_Sealed):
    """A function of ours that the pickle may call."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        """The stand-in's function of these arguments."""
        return self._content(*arguments)


class _Network(_Sealed):
    """(class name, state)."""

    __slots__ = ()


class _Storage(_Sealed):
    """A one-dimensional tensor of all elements."""

    __slots__ = ()


class _Held(_Sealed):
    """A tensor."""

    __slots__ = ()


class _Dtype(_Sealed):
    """A numpy element type, whose state may set its byte order."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
        if not isinstance(order, str) or order not in ("<", ">", "|", "="):
            raise _malformed("a numpy type")
        object.__setattr__(self, "_content", order + self._content.lstrip("<>|="))

    def real(self) -> np.dtype[Any]:
        return np.dtype(str(self._content))


class _Array(_Sealed):
    """A numpy array, filled by its state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _malformed("a numpy array")
        _, shape, dtype, fortran, data = state
        sound = isinstance(shape, tuple) and all(_whole(n) for n in shape) and len(shape) <= 32
        if not sound or not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise _malformed("a numpy array")
        kind = dtype.real()
        if math.prod(shape) * kind.itemsize != len(data):
            raise _malformed("a numpy array")
        flat = np.frombuffer(data, kind)
        array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
        object.__setattr__(self, "_content", array.copy())


def _malformed(what: str) -> CorruptWeights:
    return CorruptWeights(f"{what} in it is malformed.")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40


def _network(meta: object) -> _Network:
    """The content of a persistent object; its source text (``module_src``) is left behind."""
    if not isinstance(meta, dict) or dict.get(meta, "type") != "class":
        raise _malformed("a network object")
    name, state = dict.get(meta, "class_name"), dict.get(meta, "state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise _malformed("a network object")
    return _Network((name, state))


def _storage(data: object) -> _Storage:
    """A storage, which is a torch file inside the pickle: read with weights_only like any."""
    if not isinstance(data, bytes):
        raise _malformed("a storage")
    loaded: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(loaded, torch.storage.TypedStorage):
        raise _malformed("a storage")
    kind: torch.dtype = loaded.dtype
    flat = torch.empty(0, dtype=kind)
    flat.set_(loaded._untyped_storage)
    return _Storage(flat)


def _tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> _Held:
    """A view of a storage, within its bounds and never larger than it."""
    if not isinstance(storage, _Storage) or not isinstance(offset, int):
        raise _malformed("a tensor")
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise _malformed("a tensor")
    if not all(_whole(number) for number in (offset, *size, *stride)) or len(size) > 32:
        raise _malformed("a tensor")
    elements: Tensor = storage._content
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > elements.numel() or (count > 0 and last >= elements.numel()):
        raise CorruptWeights("a tensor in it claims more elements than are stored.")
    if count == 0:
        return _Held(elements.new_empty(size))
    return _Held(elements.as_strided(size, stride, offset).clone())


def _parameter(data: object, *rest: object) -> _Held:
    if not isinstance(data, _Held):
        raise _malformed("a parameter")
    return data


def _dtype(code: object, *rest: object) -> _Dtype:
    text = code.lstrip("<>|=") if isinstance(code, str) else ""
    if text not in _NUMBERS:
        raise _malformed("a numpy type")
    return _Dtype(text)


def _scalar(dtype: object, data: object) -> float | int | bool:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise _malformed("a numpy number")
    kind = dtype.real()
    if len(data) != kind.itemsize:
        raise _malformed("a numpy number")
    value: float | int | bool = np.frombuffer(data, kind)[0].item()
    return value


def _array(*rest: object) -> _Array:
    return _Array(np.zeros(0))


def _bare_array(*rest: object) -> NoReturn:
    raise _malformed("a numpy array")


def _size(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, (tuple, list)) or not all(_whole(number) for number in numbers):
        raise _malformed("a torch size")
    return tuple(numbers)


def _device(name: object, *rest: object) -> str:
    if not isinstance(name, str):
        raise _malformed("a torch device")
    return name


CONSTRUCTORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _network,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): _bare_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
}
"""What a pickle may name, and the stand-in it gets."""

DTYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    )
}
"""torch's element types by name; a record's state may hold them as values."""


def settled(value: Any, seen: dict[int, Any], depth: int = 0) -> Any:
    """The value with real tensors, arrays and records in place of their stand-ins.

    ``seen`` starts empty; it keeps shared parts shared and ends cycles.

    Raises:
        CorruptWeights: nested too deep, or a table with odd keys.
        UnsafeWeights: anything left that is not data.
    """
    if depth > 4 * MAX_DEPTH:
        raise CorruptWeights("it nests its data too deeply.")
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        return value
    if isinstance(value, (_Held, _Array)):
        return value._content
    key = id(value)
    if key in seen:
        return seen[key]
    if isinstance(value, _Network):
        name, state = value._content
        seen[key] = record = NvidiaRecord(name, {})
        record.state.update(_settled_items(state, seen, depth))
        return record
    if isinstance(value, dict):
        table: dict[Any, Any] = {}
        seen[key] = table
        table.update(_settled_items(value, seen, depth))
        return table
    if isinstance(value, list):
        listed: list[Any] = []
        seen[key] = listed
        listed.extend(settled(item, seen, depth + 1) for item in value)
        return listed
    if isinstance(value, (tuple, set, frozenset)):
        seen[key] = type(value)(settled(item, seen, depth + 1) for item in value)
        return seen[key]
    raise UnsafeWeights(f"it leaves a {type(value).__name__} where data should be.")


def _settled_items(
    table: dict[Any, Any], seen: dict[int, Any], depth: int
) -> Iterator[tuple[Any, Any]]:
    for key, value in list(dict.items(table)):  # not table.items: its state may shadow that
        if not isinstance(key, (str, int, float, bytes)):
            raise CorruptWeights("a table in it has keys that are no plain values.")
        yield key, settled(value, seen, depth + 1)
