"""Small FIR filters on image maps: the blur behind an upsampling convolution, and 2x upsampling.

Both run as depthwise convolutions over [B, C, H, W]; folding the channels into the batch, the
other common way, costs several times as much on a CPU.
Source: Karras et al. 2020 (StyleGAN2), appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def fir_kernel(taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0), gain: float = 4.0) -> Tensor:
    """The separable 2-D kernel [n, n] of 1-D taps, summing to ``gain`` (4 keeps 2x brightness).

    >>> fir_kernel((1.0, 1.0), gain=1.0).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    row = torch.tensor(tuple(taps), dtype=torch.float32)
    square = torch.outer(row, row)
    return square * (gain / square.sum())


def blur(maps: Tensor, kernel: Tensor, padding: int = 1) -> Tensor:
    """Maps [B, C, H, W] convolved channel by channel with ``kernel`` [k, k], zeros outside."""
    channels = maps.shape[1]
    taps = kernel.flip((0, 1)).to(maps.dtype).expand(channels, 1, *kernel.shape)
    return F.conv2d(maps, taps, padding=padding, groups=channels)


def upsample_twice(maps: Tensor, kernel: Tensor) -> Tensor:
    """Maps [B, C, 2H, 2W]: zeros put between the pixels, then ``kernel`` [4, 4] applied."""
    channels = maps.shape[1]
    taps = kernel.to(maps.dtype).expand(channels, 1, *kernel.shape)
    return F.conv_transpose2d(maps, taps, stride=2, padding=1, groups=channels)
