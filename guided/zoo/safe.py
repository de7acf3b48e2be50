"""Weight files to plain tensors without running anything that is in them.

safetensors first; older torch files only through ``torch.load(weights_only=True)``, which has its
own interpreter for the few pickle instructions that make tensors.  There is no other way in and
no switch: a file that needs more is refused.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from guided.errors import CorruptWeights, MissingWeights, UnsafeWeights
from guided.zoo.headers import MAX_NAME, MAX_TENSORS
from guided.zoo.nvidia import NvidiaRecord, load_nvidia_pickle, wants_code
from guided.zoo.pickle_machine import MAX_STEPS, SPARE
from guided.zoo.structure import SHARED, check_weights

__all__ = ["NvidiaRecord", "load_nvidia_pickle", "load_tensors"]

MAX_DEPTH = 32

_DAMAGE = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError, EOFError,
    ArithmeticError, MemoryError, AssertionError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


class Options:
    """An inert stand-in for ``argparse.Namespace``, which trainings save beside their weights."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Keep nothing: the options of a training are no weights."""


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name, on the CPU, as stored.

    Takes .safetensors and torch's .pt, .pth, .bin and .ckpt.  Tables inside a torch file are
    flattened (``{"g_ema": {"conv": t}}`` gives ``g_ema.conv``); plain values beside the tensors
    are left out.

    Raises:
        MissingWeights: no such file.
        UnsafeWeights: a torch file that asks for anything but tensors and plain values.
        CorruptWeights: a damaged file, or one of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeights(f"There is no weight file {path}.", hint="Check the path.")
    if path.suffix == ".pkl":
        raise UnsafeWeights(
            f"{path} is a bare pickle, which can run code.",
            hint="Network pickles of StyleGAN2 are read by the generator that names them.",
        )
    check_weights(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return flatten(_load_torch(path), str(path))


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
        raise CorruptWeights(
            f"{path} cannot be read as safetensors ({_line(error)}).",
            hint="Get the file again from its source.",
        ) from error
    return tensors


def _load_torch(path: Path) -> object:
    try:
        with torch.serialization.safe_globals([(Options, "argparse.Namespace")]):
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise (_unsafe if wants_code(error) else _damaged)(path, error) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    return loaded


def _damaged(path: Path, error: Exception) -> CorruptWeights:
    return CorruptWeights(
        f"{path} is damaged or not a torch weight file ({_line(error)}).",
        hint="Get the file again from its source.",
    )


def _unsafe(path: Path, error: Exception) -> UnsafeWeights:
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f"it asks for {asked[1]}" if asked else "it calls functions that make no tensor"
    return UnsafeWeights(
        f"{path} holds more than tensors and plain values ({what}); it was not loaded.",
        hint="Ask its author for a safetensors file. There is no switch to load it anyway.",
    )


def _line(error: BaseException) -> str:
    if isinstance(error, UnpicklingError):  # torch's text recommends to load it unsafely
        return "its pickle is broken"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first[:160].rstrip(". ")


def flatten(loaded: object, name: str) -> dict[str, Tensor]:
    """The tensors of nested tables and lists under dotted names, detached and plain.

    Raises:
        CorruptWeights: none in it, too many, too deep, or a tensor that is not dense or claims
            more elements than are stored.
    """
    tensors: dict[str, Tensor] = {}
    claimed = 0
    stored: dict[int, int] = {}
    for key, tensor in _Leaves(name).of(loaded, "", 0):
        if key in tensors:
            raise CorruptWeights(f"{name} has two tensors called {key!r}.")
        if len(tensors) >= MAX_TENSORS:
            raise CorruptWeights(f"{name} holds more than {MAX_TENSORS} tensors.")
        tensors[key] = plain = _plain(tensor, key, name)
        storage = plain.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        claimed += plain.numel() * plain.element_size()
        if claimed > SPARE and claimed > SPARE + SHARED * sum(stored.values()):
            raise CorruptWeights(
                f"The tensor {key!r} of {name} claims {plain.numel()} elements, "
                f"but only {storage.nbytes()} bytes are stored."
            )
    if not tensors:
        raise CorruptWeights(f"{name} holds no tensor.", hint="Is it really a weight file?")
    return tensors


class _Leaves:
    """The tensors of nested tables by dotted name; shared parts without any are seen once."""

    def __init__(self, name: str) -> None:
        self.name, self.visits = name, 0
        self.barren: set[int] = set()

    def of(self, value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, in order."""
        if depth > MAX_DEPTH:
            raise CorruptWeights(f"{self.name} nests its tables deeper than {MAX_DEPTH}.")
        if isinstance(value, Tensor):
            yield prefix or "tensor", value
            return
        if not isinstance(value, (dict, list, tuple)) or id(value) in self.barren:
            return
        self.visits += len(value)
        if self.visits > 2 * MAX_STEPS:
            raise CorruptWeights(f"{self.name} repeats its tables more often than makes sense.")
        bare = True
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(item, (Tensor, dict, list, tuple)):
                continue
            for leaf in self.of(item, self._joined(prefix, key), depth + 1):
                bare = False
                yield leaf
        if bare:
            self.barren.add(id(value))

    def _joined(self, prefix: str, key: object) -> str:
        joined = f"{prefix}.{key}" if prefix else str(key)
        if len(joined) > MAX_NAME:
            raise CorruptWeights(f"{self.name} has a tensor whose name is longer than {MAX_NAME}.")
        return joined


def _plain(tensor: Tensor, key: str, name: str) -> Tensor:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.is_quantized:
        raise CorruptWeights(f"The tensor {key!r} of {name} is sparse, quantised or has no data.")
    tensor = tensor.detach()
    return tensor.as_subclass(Tensor)
