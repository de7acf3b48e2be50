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
from guided.zoo.headers import MAX_TENSORS, read_header
from guided.zoo.nvidia import NvidiaRecord, load_nvidia_pickle, wants_code

__all__ = ["NvidiaRecord", "load_nvidia_pickle", "load_tensors"]

TORCH_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt"})
MAX_DEPTH = 32

_DAMAGE = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, OSError, EOFError,
    ArithmeticError, MemoryError, AssertionError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


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
    if path.suffix == ".safetensors":
        read_header(path)
        return _load_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return flatten(_load_torch(path), str(path))
    if path.suffix == ".pkl":
        raise UnsafeWeights(
            f"{path} is a bare pickle, which can run code.",
            hint="Network pickles of StyleGAN2 are read by the generator that names them.",
        )
    raise CorruptWeights(
        f"{path} has the ending {path.suffix or 'none'!r}, which no weight file has.",
        hint=f"Known: .safetensors, {', '.join(sorted(TORCH_SUFFIXES))}.",
    )


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
        if zipfile.is_zipfile(path) and _is_program(path):
            raise UnsafeWeights(
                f"{path} is a TorchScript archive, which is a program.",
                hint="Use a file that holds the weights alone (a state dict or safetensors).",
            )
        loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise (_unsafe if wants_code(error) else _damaged)(path, error) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    return loaded


def _is_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


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
    for key, tensor in _leaves(loaded, "", 0, name):
        if key in tensors:
            raise CorruptWeights(f"{name} has two tensors called {key!r}.")
        if len(tensors) >= MAX_TENSORS:
            raise CorruptWeights(f"{name} holds more than {MAX_TENSORS} tensors.")
        tensors[key] = _plain(tensor, key, name)
    if not tensors:
        raise CorruptWeights(f"{name} holds no tensor.", hint="Is it really a weight file?")
    return tensors


def _leaves(value: Any, prefix: str, depth: int, name: str) -> Iterator[tuple[str, Tensor]]:
    if depth > MAX_DEPTH:
        raise CorruptWeights(f"{name} nests its tables deeper than {MAX_DEPTH}.")
    if isinstance(value, Tensor):
        yield prefix or "tensor", value
        return
    if isinstance(value, dict):
        parts = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(str(i), item) for i, item in enumerate(value)]
    else:
        return
    for key, item in parts:
        yield from _leaves(item, f"{prefix}.{key}" if prefix else key, depth + 1, name)


def _plain(tensor: Tensor, key: str, name: str) -> Tensor:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.is_quantized:
        raise CorruptWeights(f"The tensor {key!r} of {name} is sparse, quantised or has no data.")
    tensor = tensor.detach()
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        raise CorruptWeights(
            f"The tensor {key!r} of {name} claims {tensor.numel()} elements, "
            f"but only {stored} bytes are stored."
        )
    return tensor.as_subclass(Tensor)
