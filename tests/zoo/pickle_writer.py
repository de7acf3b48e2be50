"""Pickles written instruction by instruction: network pickles in NVIDIA's layout, and attacks."""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """``module.name(*args)``, then ``items`` set on it, then BUILD with ``state`` if given."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    items: tuple[tuple[Any, Any], ...] = ()
    state: Any = None
    by: str = "REDUCE"


@dataclass(frozen=True)
class Name:
    """``module.name`` itself, not called."""

    module: str
    name: str


@dataclass(frozen=True)
class Raw:
    """Pickle instructions as they are."""

    code: bytes


def dumps(value: Any, protocol: int = 4) -> bytes:
    """The value as a pickle of protocol 3 (GLOBAL) or 4 (STACK_GLOBAL)."""
    return b"\x80" + bytes([protocol]) + b"".join(_code(value, protocol)) + b"."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str, protocol: int) -> bytes:
    if protocol < 4:
        return f"c{module}\n{name}\n".encode()
    return text(module) + text(name) + b"\x93"


def _code(value: Any, protocol: int) -> Iterator[bytes]:
    if isinstance(value, Raw):
        yield value.code
    elif isinstance(value, Name):
        yield named(value.module, value.name, protocol)
    elif isinstance(value, Call):
        yield named(value.module, value.name, protocol)
        yield from _code(value.args, protocol)
        yield b"R" if value.by == "REDUCE" else b"\x81"
        if value.items:
            yield b"("
            for key, item in value.items:
                yield from _code(key, protocol)
                yield from _code(item, protocol)
            yield b"u"
        if value.state is not None:
            yield from _code(value.state, protocol)
            yield b"b"
    elif value is None:
        yield b"N"
    elif isinstance(value, bool):
        yield b"\x88" if value else b"\x89"
    elif isinstance(value, int):
        yield b"J" + struct.pack("<i", value) if abs(value) < 2**31 else _long(value)
    elif isinstance(value, float):
        yield b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        yield text(value)
    elif isinstance(value, bytes):
        yield b"B" + struct.pack("<I", len(value)) + value
    elif isinstance(value, Tensor):
        yield from _code(tensor(value), protocol)
    elif isinstance(value, (np.ndarray, np.generic)):
        yield from _code(array(value), protocol)
    elif isinstance(value, (dict, list, tuple)):
        yield from _container(value, protocol)
    else:
        raise TypeError(type(value))


def _long(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _container(value: Any, protocol: int) -> Iterator[bytes]:
    if isinstance(value, OrderedDict):
        yield from _code(Call("collections", "OrderedDict", (), tuple(value.items())), protocol)
    elif isinstance(value, dict):
        yield b"}("
        for key, item in value.items():
            yield from _code(key, protocol)
            yield from _code(item, protocol)
        yield b"u"
    elif isinstance(value, list):
        yield b"]("
        for item in value:
            yield from _code(item, protocol)
        yield b"e"
    else:
        yield b"("
        for item in value:
            yield from _code(item, protocol)
        yield b"t"


def tensor(value: Tensor) -> Call:
    """A tensor as plain pickle (not torch.save) writes it: its storage is a torch file inside."""
    file = io.BytesIO()
    flat = value.detach().contiguous().view(-1)
    storage = torch.storage.TypedStorage(
        wrap_storage=flat.untyped_storage(), dtype=flat.dtype, _internal=True
    )
    torch.save(storage, file, _use_new_zipfile_serialization=False)
    inner = Call("torch.storage", "_load_from_bytes", (file.getvalue(),))
    shape = tuple(value.shape)
    stride = tuple(value.contiguous().stride())
    hooks: OrderedDict[str, Any] = OrderedDict()
    return Call("torch._utils", "_rebuild_tensor_v2", (inner, 0, shape, stride, False, hooks))


def parameter(value: Tensor) -> Call:
    return Call("torch._utils", "_rebuild_parameter", (tensor(value), True, OrderedDict()))


def array(value: Any, module: str = "numpy.core.multiarray") -> Call:
    kind = Call(
        "numpy", "dtype", (value.dtype.str[1:], False, True),
        state=(3, value.dtype.str[0], None, None, None, -1, -1, 0),
    )  # fmt: skip
    if isinstance(value, np.generic):
        return Call(module, "scalar", (kind, value.tobytes()))
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    data = value.tobytes("F" if fortran else "C")
    state = (1, value.shape, kind, bool(fortran), data)
    return Call(module, "_reconstruct", (Name("numpy", "ndarray"), (0,), b"b"), state=state)


@dataclass
class Net:
    """A module as NVIDIA's persistence writes it."""

    class_name: str
    parameters: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, Net] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    source: str = "raise SystemExit('the source was run')"

    def call(self) -> Call:
        parts = {
            "training": False,
            "_parameters": OrderedDict((k, parameter(v)) for k, v in self.parameters.items()),
            "_buffers": OrderedDict(self.buffers),
            "_non_persistent_buffers_set": Raw(b"\x8f"),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict((k, v.call()) for k, v in self.modules.items()),
            **self.attributes,
            "_init_args": (),
            "_init_kwargs": Call("dnnlib.util", "EasyDict", (), (("size", 8),), by="NEWOBJ"),
        }
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": parts,
        }
        return Call("torch_utils.persistence", "_reconstruct_persistent_obj", (meta,))
