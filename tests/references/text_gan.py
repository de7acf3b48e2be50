"""The common way of a small text-to-image GAN, written from its formulas: what we are compared to.

A trunk up to the full side, an affine of two two-layer perceptrons before every convolution, fp32,
and the matching-aware gradient penalty at every step.  Source: Tao et al. 2022 (DF-GAN).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Affine(nn.Module):
    """gamma * x + beta, both made of the condition."""

    def __init__(self, cond: int, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = (
            nn.Sequential(nn.Linear(cond, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(2)
        )

    def forward(self, maps: Tensor, cond: Tensor) -> Tensor:
        return self.gamma(cond)[:, :, None, None] * maps + self.beta(cond)[:, :, None, None]


class UpBlock(nn.Module):
    """Doubling, then twice (two affines with leaky ReLUs, 3x3 convolution), beside a shortcut."""

    def __init__(self, before: int, after: int, cond: int) -> None:
        super().__init__()
        self.affines = nn.ModuleList(
            Affine(cond, width) for width in (before, before, after, after)
        )
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.short = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, maps: Tensor, cond: Tensor) -> Tensor:
        maps = F.interpolate(maps, scale_factor=2.0)
        inner = maps
        for affine in self.affines[:2]:
            inner = F.leaky_relu(affine(inner, cond), 0.2)
        inner = self.first(inner)
        for affine in self.affines[2:]:
            inner = F.leaky_relu(affine(inner, cond), 0.2)
        return self.short(maps) + self.second(inner)


class Generator(nn.Module):
    """z and text to pictures; ``unit`` sets the width of every level."""

    def __init__(self, size: int, text: int, unit: int, latent: int = 100) -> None:
        super().__init__()
        levels = (size // 4).bit_length() - 1
        widths = [unit * min(8, 2**k) for k in range(levels, -1, -1)]
        self.start, self.width = nn.Linear(latent, widths[0] * 16), widths[0]
        self.blocks = nn.ModuleList(UpBlock(b, a, latent + text) for b, a in pairwise(widths))
        self.colours = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        cond, maps = torch.cat([z, text], 1), self.start(z).view(len(z), self.width, 4, 4)
        for block in self.blocks:
            maps = block(maps, cond)
        return torch.tanh(self.colours(F.leaky_relu(maps, 0.2)))


class DownBlock(nn.Module):
    """A 4x4 convolution that halves and a 3x3 one, scaled by a number, beside a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 4, 2, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(before, after, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.leaky_relu(self.second(F.leaky_relu(self.first(maps), 0.2)), 0.2)
        return F.avg_pool2d(self.short(maps), 2) + self.gamma * inner


class Discriminator(nn.Module):
    """Pictures to maps at 4 px; maps with texts to logits."""

    def __init__(self, size: int, text: int, unit: int) -> None:
        super().__init__()
        levels = (size // 4).bit_length() - 1
        widths = [unit * min(8, 2**k) for k in range(levels + 1)]
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(DownBlock(b, a) for b, a in pairwise(widths))
        self.joint = nn.Conv2d(widths[-1] + text, 2 * unit, 3, padding=1, bias=False)
        self.logit = nn.Conv2d(2 * unit, 1, 4, bias=False)

    def look(self, pictures: Tensor) -> Tensor:
        maps = self.stem(pictures)
        for block in self.blocks:
            maps = block(maps)
        return maps

    def judge(self, maps: Tensor, text: Tensor) -> Tensor:
        tiled = text[:, :, None, None].expand(-1, -1, 4, 4)
        return self.logit(F.leaky_relu(self.joint(torch.cat([maps, tiled], 1)), 0.2)).flatten()


def step_of(
    generator: Generator, critic: Discriminator, real: Tensor, z: Tensor, text: Tensor
) -> Callable[[], None]:
    """One training step of both: hinge losses, rolled features as mismatches, MA-GP every time."""
    first = torch.optim.Adam(generator.parameters(), 1e-4, betas=(0.0, 0.9))
    second = torch.optim.Adam(critic.parameters(), 4e-4, betas=(0.0, 0.9))

    def step() -> None:
        pictures, words = real.clone().requires_grad_(), text.clone().requires_grad_()
        maps = critic.look(pictures)
        true = critic.judge(maps, words)
        wrong = critic.judge(maps.roll(1, 0), words)
        made = generator(z, text)
        fake = critic.judge(critic.look(made.detach()), text)
        loss = F.relu(1 - true).mean() + 0.5 * (F.relu(1 + fake) + F.relu(1 + wrong)).mean()
        slopes = torch.autograd.grad(true.sum(), (pictures, words), create_graph=True)
        size = torch.cat([slope.flatten(1) for slope in slopes], 1).square().sum(1)
        penalty = 2.0 * (size + 1e-12).sqrt().pow(6).mean()
        second.zero_grad(set_to_none=True)
        (loss + penalty).backward()
        second.step()
        first.zero_grad(set_to_none=True)
        (-critic.judge(critic.look(made), text)).mean().backward()
        first.step()

    return step
