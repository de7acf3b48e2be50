"""Layers whose weights are stored at unit variance and scaled when used.

Source: Karras et al. 2018 (progressive growing), section 4.1; the activation with gain sqrt(2) is
that of StyleGAN2.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
GAIN = math.sqrt(2.0)


def activation(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2 and gain sqrt(2), which keeps the variance of a unit normal."""
    return F.leaky_relu(x, SLOPE) * GAIN


class PixelNorm(nn.Module):
    """Divides by the root mean square over axis 1 (the features of a [B, D] tensor)."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised tensor."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def mapping_network(latent: int, style: int, depth: int) -> nn.Sequential:
    """A pixel norm and ``depth`` lively layers: z [B, latent] -> w [B, style].

    Source: Karras et al. 2019 (StyleGAN), section 2; the learning rate is a hundredth.
    """
    widths = [latent] + [style] * depth
    layers = [EqualLinear(a, b, pace=0.01, activation="lively") for a, b in pairwise(widths)]
    return nn.Sequential(PixelNorm(), *layers)


class EqualLinear(nn.Module):
    """x [..., in] -> [..., out] with weights scaled by ``pace / sqrt(in)`` at run time.

    ``pace`` (the learning-rate multiplier of the paper) also scales the bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: float = 0.0,
        pace: float = 1.0,
        activation: Literal["none", "lively"] = "none",
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outputs, inputs)) / pace)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale = pace / math.sqrt(inputs)
        self.pace = pace
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """The mapped tensor [..., out]."""
        y = F.linear(x, self.weight * self.scale, self.bias * self.pace)
        return activation(y) if self.activation == "lively" else y
