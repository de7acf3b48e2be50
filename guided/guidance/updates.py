"""How a gradient moves a leaf: Adam, or ZeroCap's normalised step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from guided.core.protocols import Latent

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """The same step size throughout."""
    return 1.0


class Update(Protocol):
    """A rule that turns leaves and their gradients into the next leaves.

    Rules keep their own state and are made anew for each loop; every row moves by itself.
    """

    def __call__(self, leaves: Latent, gradients: Latent, progress: float) -> Latent:
        """The next leaves; ``progress`` in [0, 1) is the step's index over the number of steps."""
        ...


@dataclass
class Adam:
    """Adam with bias correction.  Source: Kingma & Ba 2015, algorithm 1.

    ``rate`` is the step size, multiplied by ``schedule(progress)``.  A step whose size is zero
    still feeds the moments, as it does in the optimiser this agrees with.
    """

    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    schedule: Schedule = constant
    _count: int = 0
    _means: dict[str, Tensor] = field(default_factory=dict)
    _squares: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, leaves: Latent, gradients: Latent, progress: float) -> Latent:
        """The leaves after one step of the moments."""
        self._count += 1
        rate = self.rate * self.schedule(progress)
        first, second = self.betas
        moved: Latent = {}
        for name, leaf in leaves.items():
            gradient = gradients[name]
            mean = self._means.get(name, torch.zeros_like(leaf)).lerp(gradient, 1 - first)
            square = self._squares.get(name, torch.zeros_like(leaf))
            square = square * second + gradient.square() * (1 - second)
            self._means[name], self._squares[name] = mean, square
            scale = square.sqrt() / (1 - second**self._count) ** 0.5 + self.epsilon
            moved[name] = leaf.addcdiv(mean, scale, value=-rate / (1 - first**self._count))
        return moved


@dataclass
class Normalised:
    """x <- x - rate * g / (|g| + 1e-15)^power with a norm for each row of each leaf.

    Source: ZeroCap (Tewel et al. 2022), the context update of section 3.  Keep every layer's keys
    and values as leaves of their own, since each has its own norm.
    """

    rate: float = 0.3
    power: float = 0.9

    def __call__(self, leaves: Latent, gradients: Latent, progress: float) -> Latent:
        """The leaves after one step against the normalised gradients."""
        moved: Latent = {}
        for name, leaf in leaves.items():
            gradient = gradients[name]
            norm = gradient.flatten(1).norm(dim=1) + 1e-15
            scale = (self.rate / norm**self.power).view(-1, *[1] * (leaf.ndim - 1))
            moved[name] = leaf - scale * gradient
        return moved


def ramp(progress: float, up: float = 0.05, down: float = 0.25) -> float:
    """The factor of the paper's schedule: linear rise over ``up``, cosine fall over ``down``.

    Source: Karras et al. 2020 (StyleGAN2), projection; used by StyleCLIP's optimisation.

    >>> ramp(0.0), ramp(0.5), round(ramp(0.875), 3)
    (0.0, 1.0, 0.5)
    """
    fall = min(1.0, (1 - progress) / down)
    cosine = 0.5 - 0.5 * math.cos(math.pi * fall)
    return cosine * min(1.0, progress / up)
