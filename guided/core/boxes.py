"""Box resize: every output pixel is the exact mean of the input area it covers.

For 224 pixels out it is the same map as repeating each pixel 7 times and average-pooling by
size / 32 (StyleCLIP's way for sizes that are multiples of 32), without the picture of 49 times the
memory: the sizes' common divisor cuts each axis into equal blocks, and one small matrix serves
every block.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def _block(inputs: int, outputs: int) -> tuple[tuple[float, ...], ...]:
    """The share of each input cell in each output cell: [outputs, inputs], rows sum to 1."""
    ratio = inputs / outputs
    return tuple(
        tuple(
            max(0.0, min((o + 1) * ratio, i + 1.0) - max(o * ratio, float(i))) / ratio
            for i in range(inputs)
        )
        for o in range(outputs)
    )


def _matrix(inputs: int, outputs: int, like: Tensor) -> tuple[Tensor, int]:
    blocks = math.gcd(inputs, outputs)
    cells = _block(inputs // blocks, outputs // blocks)
    return torch.tensor(cells, dtype=like.dtype, device=like.device), blocks


def box_resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Images [B, C, H, W] averaged over areas to [B, C, size, size] (or [.., height, width]).

    Larger sizes repeat pixels, with fractional shares at the seams; differentiable.

    >>> box_resize(torch.arange(4.0).view(1, 1, 2, 2), 1)
    tensor([[[[1.5000]]]])
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows, channels, _, _ = images.shape
    across, parts = _matrix(images.shape[3], width, images)
    narrow = images.reshape(rows, channels, images.shape[2], parts, -1) @ across.T
    down, parts = _matrix(images.shape[2], height, images)
    cells = narrow.reshape(rows, channels, parts, -1, width)
    return (down @ cells).reshape(rows, channels, height, width)
