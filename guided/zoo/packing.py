"""Weights to small files: fp16 or bf16, and int8 for large tensors where that is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from guided.core.files import write_bytes
from guided.errors import CannotDo, CorruptWeights
from guided.zoo.safe import load_tensors

BYTES = "::int8"
SCALE = "::scale"

_KINDS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pack(tensors: Mapping[str, Tensor], smallest: int = 4096) -> dict[str, Tensor]:
    """Floating point tensors with two axes or more as int8, one scale for each output channel.

    Tensors below ``smallest`` elements, and all with fewer axes, stay as they are.  The entry w
    becomes ``w::int8`` [O, ...] and ``w::scale`` [O] (float32) with w about int8 * scale; the
    error is at most half a scale, which is the channel's largest value / 127.

    Raises:
        CannotDo: values that are not finite, or a name that already has such an ending.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith((BYTES, SCALE)):
            raise CannotDo(f"The tensor {name!r} is packed already.")
        _check_finite(name, tensor)
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < smallest:
            packed[name] = tensor
            continue
        rows = tensor.detach().float().flatten(1)
        scale = rows.abs().amax(1) / 127
        divisor = torch.where(scale > 0, scale, torch.ones_like(scale))[:, None]
        whole = (rows / divisor).round().clamp(-127, 127).to(torch.int8)
        packed[name + BYTES] = whole.view(tensor.shape)
        packed[name + SCALE] = scale
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``pack`` in float32 again; others unchanged.

    Raises:
        CorruptWeights: int8 values without their scales, or scales of another length.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) + BYTES in tensors:
            continue
        if not name.endswith(BYTES):
            plain[name] = tensor
            continue
        own = name.removesuffix(BYTES)
        scale = tensors.get(own + SCALE)
        if scale is None or scale.shape != tensor.shape[:1]:
            raise CorruptWeights(f"The packed tensor {own!r} has no fitting scales.")
        plain[own] = tensor.float() * scale.float().view(-1, *[1] * (tensor.ndim - 1))
    return plain


def save_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors as safetensors, whole or not at all; returns the path.

    Floating point tensors are stored as ``dtype`` (the scales of ``pack`` stay float32), others
    as they are.  The same tensors and metadata give the same bytes.

    Raises:
        CannotDo: values that are not finite, or too large for ``dtype``.
        OutputError: it cannot be written.
    """
    stored: dict[str, Tensor] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu")
        _check_finite(name, tensor)
        if tensor.is_floating_point() and not name.endswith(SCALE):
            tensor = tensor.to(_KINDS[dtype])
            if not bool(torch.isfinite(tensor).all()):
                raise CannotDo(
                    f"The tensor {name!r} has values too large for {dtype}.",
                    hint="Store it as bf16 or fp32.",
                )
        stored[name] = tensor.clone(memory_format=torch.contiguous_format)
    data: bytes = save(stored, dict(metadata or {}) or None)
    return write_bytes(path, _ordered(data))


def _ordered(data: bytes) -> bytes:
    """The same safetensors file with its metadata in order: the library writes them in any."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    if "__metadata__" in table:
        table["__metadata__"] = dict(sorted(table["__metadata__"].items()))
    head = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name, packed ones in float32 again.

    Raises:
        MissingWeights, UnsafeWeights, CorruptWeights: as ``load_tensors``.
    """
    return unpack(load_tensors(path))


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CannotDo(
            f"The tensor {name!r} has values that are NaN or infinite.",
            hint="Weights like these come from a diverged training; take an earlier checkpoint.",
        )
