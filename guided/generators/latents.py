"""Latents in files: ours, and the W+ files people share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from guided.core.delta import Delta
from guided.core.protocols import Latent
from guided.errors import CorruptWeights
from guided.zoo.safe import load_tensors

_START, _CHANGE = "start.", "change."


def pack_delta(delta: Delta) -> bytes:
    """A safetensors file of a change: its start, and the change at strength 1."""
    named = {f"{_START}{name}": leaf for name, leaf in delta.start.items()}
    named |= {f"{_CHANGE}{name}": leaf for name, leaf in delta.change.items()}
    plain = {name: leaf.detach().float().cpu().contiguous() for name, leaf in named.items()}
    content: bytes = save(plain, metadata={"method": delta.method})
    return content


def read_delta(path: str | Path) -> Delta:
    """The change in a file written by ``pack_delta``, or a shared latent file with no change yet.

    Shared files: a bare tensor [N, rows, style] or [rows, style], a table with ``latent`` or
    ``w``, a table of pictures each with a ``latent``.

    Raises:
        MissingWeights: no such file.
        UnsafeWeights: a file that would run code.
        CorruptWeights: a file without latents; the message lists what it holds.
    """
    tensors = load_tensors(Path(path))
    start = _under(tensors, _START)
    if start:
        return Delta(start, _under(tensors, _CHANGE), "file")
    return Delta(_shared(tensors, Path(path)), {}, "file")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> Latent:
    return {k[len(prefix) :]: v.float() for k, v in tensors.items() if k.startswith(prefix)}


def _shared(tensors: Mapping[str, Tensor], path: Path) -> Latent:
    codes = {name: each for name, each in tensors.items() if name.startswith("s_")}
    if codes:
        return {name: each.float() for name, each in codes.items()}
    wanted = ("tensor", "w", "latent", "latents")
    found = [
        each if each.ndim == 3 else each[None]
        for name, each in tensors.items()
        if name.rsplit(".", 1)[-1] in wanted and each.ndim in (2, 3)
    ]
    if not found or len({each.shape[1:] for each in found}) > 1:
        shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in sorted(tensors.items())[:4])
        raise CorruptWeights(
            f"{path} holds no latents; it holds {shapes}.",
            hint="Expected is a W+ tensor [N, rows, style], or a file an edit has saved.",
        )
    return {"w": torch.cat(found).float()}
