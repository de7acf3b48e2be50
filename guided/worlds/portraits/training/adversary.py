"""A discriminator beside a paired regression, in one backward pass and under one optimiser.

The discriminator sees a picture and its w, once for the drawing and once for what was made of the
same w.  Its own loss is softplus(-D(real)) + softplus(D(made)); the gradient that this loss sends
on to the made picture is turned round and weighed, so that the generator follows the non-saturating
softplus(-D(made)) without a second pass:

    d softplus(-d) / dd = -sigmoid(-d) = -exp(-d) * sigmoid(d) = -exp(-d) * d softplus(d) / dd

Source: Goodfellow et al. 2014 (the two losses), Ganin et al. 2016 (gradients turned round),
Mescheder et al. 2018 (R1), Miyato and Koyama 2018 (projection).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.nets.equalized import GAIN, SLOPE, EqualLinear

#: The largest factor between the two gradients: a made picture that is seen through completely.
_STRONGEST = math.exp(3.0)
#: The penalty is taken at every so many steps and counts so many times.
LAZY = 16


class EqualConv(nn.Module):
    """A convolution whose weights are stored at unit variance; ``pace`` slows its learning."""

    def __init__(self, inputs: int, outputs: int, side: int, *, pace: float = 1.0) -> None:
        super().__init__()
        shape = (outputs, inputs, side, side)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(shape)) / pace)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.pace = pace / math.sqrt(inputs * side * side), pace

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [B, in, H, W] -> leaky ReLU of [B, out, H, W]."""
        weight = (self.weight * self.scale).to(maps.dtype)
        shaped = F.conv2d(maps, weight, (self.bias * self.pace).to(maps.dtype),
                          padding=weight.shape[-1] // 2)  # fmt: skip
        return F.leaky_relu(shaped, SLOPE) * GAIN


@dataclass(frozen=True)
class AdversaryPhase:
    """What the adversary does at one step: whether it looks, how hard it pushes, if R1 is due."""

    open: bool = False
    push: float = 0.0
    penalised: bool = False

    @classmethod
    def at(
        cls, samples: int, position: int, *, begin: int, ramp: int, weight: float
    ) -> AdversaryPhase:
        """From ``begin`` on it learns beside a generator that it leaves alone for ``ramp`` samples;
        over as many again its push grows to ``weight``.

        >>> AdversaryPhase.at(250, 0, begin=100, ramp=100, weight=0.2)
        Season(open=True, push=0.1, penalised=True)
        """
        if weight == 0 or samples < begin:
            return cls()
        share = (samples - begin - ramp) / ramp if ramp else 1.0
        return cls(True, weight * min(max(share, 0.0), 1.0), position % LAZY == 0)


class Discriminator(nn.Module):
    """Pictures [B, 3, H, W] in about [-1, 1] and their w [B, style] to logits [B].

    ``widths`` are those at full size, half of it, and so on; the last map is averaged to 4 by 4.
    """

    def __init__(self, style: int, widths: Sequence[int], *, pace: float = 0.3) -> None:
        super().__init__()
        self.first = EqualConv(3, widths[0], 3, pace=pace)
        self.blocks = nn.ModuleList(EqualConv(a, b, 3, pace=pace) for a, b in pairwise(widths))
        self.seen = EqualLinear(16 * widths[-1], 128, pace=pace, activation="lively")
        self.told = EqualLinear(style, 128, pace=pace)
        self.verdict = EqualLinear(128, 1, pace=pace)

    def forward(self, images: Tensor, w: Tensor) -> Tensor:
        """One logit for each picture, float32: high for drawings that fit their w."""
        low = torch.is_autocast_enabled(images.device.type)
        kind = torch.get_autocast_dtype(images.device.type) if low else images.dtype
        maps: Tensor = self.first(images.to(kind))
        for block in self.blocks:
            maps = block(F.avg_pool2d(maps, 2))
        seen = self.seen(F.adaptive_avg_pool2d(maps, 4).flatten(1)).float()
        told = self.told(w).float()
        plain: Tensor = self.verdict(seen)[:, 0].float()
        together: Tensor = plain + (seen * told).mean(1)
        return together


def contest(
    critic: Discriminator, made: Tensor, truth: Tensor, w: Tensor, push: float
) -> tuple[Tensor, Tensor]:
    """The logits [n] of drawings and [n] of made pictures, for the critic's loss.

    When that loss is differentiated, ``made`` gets ``push`` times the gradient of softplus(-D).
    """
    caught: list[Tensor] = []
    given = made.clone()
    if given.requires_grad:
        hooked: Any = given
        hooked.register_hook(lambda pull: _turned(pull, caught[0], push))
    drawn, imagined = critic(torch.cat([truth, given]), torch.cat([w, w])).chunk(2)
    caught.append(imagined.detach())
    return drawn, imagined


def critic_loss(drawn: Tensor, imagined: Tensor) -> Tensor:
    """softplus(-D(real)) + softplus(D(made)) [], a mean over rows."""
    return F.softplus(-drawn).mean() + F.softplus(imagined).mean()


def gradient_penalty(critic: Discriminator, truth: Tensor, w: Tensor) -> Tensor:
    """R1 []: half the mean squared gradient of the logits at drawings, in float32."""
    with torch.autocast(truth.device.type, enabled=False):
        images = truth.detach().float().requires_grad_()
        logits = critic(images, w.detach().float())
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * slope.square().sum((1, 2, 3)).mean()


def _turned(pull: Tensor, logits: Tensor, push: float) -> Tensor:
    factor = torch.exp(-logits).clamp(max=_STRONGEST)
    return -push * factor[:, None, None, None].to(pull.dtype) * pull
