"""Weights to small files: int8 per channel for large tensors, fp16 or bf16 for the others."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from guided.core.files import write_bytes
from guided.errors import CannotDo, CorruptWeights
from guided.zoo.headers import PACKED as BYTES
from guided.zoo.key_map import current_names
from guided.zoo.safe import load_tensors

SCALE = "::scale"
#: Elements of the smallest tensor that is worth its scales.
SMALLEST = 4096

_KINDS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_LEVELS = 127
#: Shares of a channel's largest value that are tried as its limit.
_LIMITS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8, 0.75, 0.7)
#: Scales below this lose digits in half precision.
_SMALLEST_HALF = 6.2e-5


def pack(
    tensors: Mapping[str, Tensor], half: Collection[str] = (), smallest: int = SMALLEST
) -> dict[str, Tensor]:
    """Floating point tensors with two axes or more as int8, one scale for each channel.

    Tensors below ``smallest`` elements, those with fewer axes and those named in ``half`` stay as
    they are.  The entry w becomes ``w::int8``, of its shape, and ``w::scale``, one number for each
    channel (all other axes have length 1), with w about int8 * scale.  Channels are those of the
    first or the second axis (of length above 1), whichever leaves the least error relative to each
    channel of both, and each is cut at the share of its largest value that leaves it the least
    squared error.  Scales are fp16, or fp32 where that would lose digits.

    Raises:
        CannotDo: values that are not finite, a name that already has such an ending, or a name in
            ``half`` that no tensor has.
    """
    if unknown := sorted(set(half) - set(tensors)):
        raise CannotDo(f"No tensor is called {unknown[0]!r}, which should stay in half precision.")
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith((BYTES, SCALE)):
            raise CannotDo(f"The tensor {name!r} is packed already.")
        _check_finite(name, tensor)
        large = tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() >= smallest
        if large and name not in half:
            packed[name + BYTES], packed[name + SCALE] = _rounded(tensor.detach().double())
        else:
            packed[name] = tensor
    return packed


def _rounded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The bytes and scales of a tensor, along the axis that leaves the least error."""
    wide = [axis for axis, length in enumerate(tensor.shape) if length > 1][:2] or [0]
    scales = [_scales(tensor, axis) for axis in wide]

    def error(scale: Tensor) -> float:
        lost = _whole(tensor, scale) * scale.double() - tensor
        return sum(
            float((_power(lost, axis) / _power(tensor, axis).clamp_min(1e-30)).mean())
            for axis in wide
        )

    scale = min(scales, key=error)
    return _whole(tensor, scale).to(torch.int8), scale


def _power(tensor: Tensor, axis: int) -> Tensor:
    """The sum of squares of each channel along ``axis``; all other axes have length 1."""
    others = [other for other in range(tensor.ndim) if other != axis]
    return tensor.square().sum(others, keepdim=True)


def _scales(tensor: Tensor, axis: int) -> Tensor:
    """The scale of each channel along ``axis`` that leaves it the least squared error."""
    most = tensor.abs().amax([a for a in range(tensor.ndim) if a != axis], keepdim=True)
    best = _stored(most / _LEVELS).double()
    least = torch.full_like(best, torch.inf)
    for limit in _LIMITS:
        scale = _stored(most * limit / _LEVELS).double()
        error = _power(_whole(tensor, scale) * scale - tensor, axis)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return _stored(best)


def _stored(scale: Tensor) -> Tensor:
    """Scales in the precision of the file."""
    fits = bool(((scale == 0) | (scale >= _SMALLEST_HALF)).all()) and bool((scale < 65504).all())
    return scale.half() if fits else scale.float()


def _whole(tensor: Tensor, scale: Tensor) -> Tensor:
    """Numbers of steps, from -127 to 127."""
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale)).double()
    return (tensor / divisor).round().clamp(-_LEVELS, _LEVELS)


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``pack`` in float32 again; others unchanged.

    Raises:
        CorruptWeights: int8 values without their scales or beside a tensor of their name; scales
            that are not finite, negative, or not one for each channel.
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
        if scale is not None and scale.ndim == 1:  # as version 0.1.0 wrote them, of the first axis
            scale = scale.view(-1, *[1] * (tensor.ndim - 1))
        if scale is None or own in tensors or not _fit(tensor, scale):
            raise CorruptWeights(f"The packed tensor {own!r} has no fitting scales.")
        plain[own] = tensor.float() * scale.float()
    return plain


def _fit(whole: Tensor, scale: Tensor) -> bool:
    """Whether scales are one for each channel of bytes, and could have been made by ``pack``."""
    kinds = whole.dtype == torch.int8 and scale.dtype in (torch.float16, torch.float32)
    wide = sum(length > 1 for length in scale.shape)
    return (
        kinds
        and scale.ndim == whole.ndim
        and all(a in (1, b) for a, b in zip(scale.shape, whole.shape, strict=True))
        and wide <= 1
        and bool((torch.isfinite(scale) & (scale >= 0)).all())
    )


def save_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: Literal["fp32", "fp16", "bf16"] = "fp16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors as safetensors, whole or not at all; returns the path.

    Floating point tensors are stored as ``dtype``, the scales of ``pack`` and others as they are.
    The same tensors and metadata give the same bytes.

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

    Those of our own networks as version 0.1.0 named them get the names of today.

    Raises:
        MissingWeights, UnsafeWeights, CorruptWeights: as ``load_tensors``; also for weights that
            are not finite.
    """
    tensors = current_names(unpack(load_tensors(path)))
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Accept weights that are all finite; buffers of attention masks may be minus infinity.

    Raises:
        CorruptWeights: the first tensor with NaN or infinity is named.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.element_size() < 2 or name.endswith("mask"):
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise CorruptWeights(
                f"The weights in {source} are not finite: {name!r} holds NaN or infinity.",
                hint="Get the file again, or take an earlier checkpoint of its training.",
            )


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CannotDo(
            f"The tensor {name!r} has values that are NaN or infinite.",
            hint="Weights like these come from a diverged training; take an earlier checkpoint.",
        )
