"""Update rules of gradient descent, composed by ``chain``: Adam, normalized steps, noise search.

A rule is a pair of pure functions.  ``init(leaves)`` gives its first state; ``update(steps, state,
leaves, progress)`` turns steps (at first the gradients) into the steps that are subtracted from the
leaves, and gives the next state.  Rules hold no state of their own, so one serves many loops.  Rows
of a batch never mix; a leaf is [B, ...], and so is its step.

The idea of chained gradient transformations is that of optax (DeepMind 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guided.core.protocols import Latent

Schedule = Callable[[float], float]
_TINY = 1e-15  # beside the norm of a row, so that a row of zeros stays one


def constant(progress: float) -> float:
    """The same step size throughout."""
    return 1.0


@dataclass(frozen=True)
class Update:
    """A rule: ``init(leaves) -> state`` and ``update(steps, state, leaves, progress)``.

    ``update`` returns the steps to subtract and the next state; ``progress`` in [0, 1) is the
    step's index over the number of steps.  Neither changes what it is given.
    """

    init: Callable[[Latent], Any]
    update: Callable[[Latent, Any, Latent, float], tuple[Latent, Any]]


def chain(*rules: Update) -> Update:
    """The rules one after the other: each is given the steps of the one before it."""

    def init(leaves: Latent) -> tuple[Any, ...]:
        return tuple(rule.init(leaves) for rule in rules)

    def update(
        steps: Latent, states: Any, leaves: Latent, progress: float
    ) -> tuple[Latent, tuple[Any, ...]]:
        after = []
        for rule, state in zip(rules, states, strict=True):
            steps, state = rule.update(steps, state, leaves, progress)
            after.append(state)
        return steps, tuple(after)

    return Update(init, update)


def descend(leaves: Latent, steps: Latent) -> Latent:
    """leaf - step for each leaf."""
    return {name: leaf - steps[name] for name, leaf in leaves.items()}


def scale(rate: float, schedule: Schedule = constant) -> Update:
    """rate * schedule(progress) * g: plain gradient descent, where it is the only rule."""
    return _stateless(lambda g, leaf, progress: rate * schedule(progress) * g)


def clip(largest: float) -> Update:
    """g * min(1, largest / |g|), with the norm |g| of a row over all leaves together.

    Source: Pascanu et al. 2013, algorithm 1.
    """

    def update(steps: Latent, state: None, leaves: Latent, progress: float) -> tuple[Latent, None]:
        squares = torch.stack([g.flatten(1).square().sum(1) for g in steps.values()])
        factor = (largest / (squares.sum(0).sqrt() + _TINY)).clamp(max=1.0)
        return {name: _beside(factor, g) * g for name, g in steps.items()}, None

    return Update(lambda leaves: None, update)


def normalize(rate: float = 1.0, power: float = 1.0) -> Update:
    """rate * g / (|g| + 1e-15)^power, with a norm for each row of each leaf.

    Source: ZeroCap (Tewel et al. 2022), the context update of section 3, with power 0.9.  There
    every layer's keys and values are leaves of their own, since each has its own norm.
    """

    def rule(g: Tensor, leaf: Tensor, progress: float) -> Tensor:
        norm = g.flatten(1).norm(dim=1) + _TINY
        return _beside(rate / norm**power, g) * g

    return _stateless(rule)


def whiten() -> Update:
    """(g - mean(g)) / std(g): mean 0 and variance 1 in each row of each leaf.

    A row of equal numbers has no direction left and becomes zero.
    """

    def rule(g: Tensor, leaf: Tensor, progress: float) -> Tensor:
        centered = g.flatten(1) - g.flatten(1).mean(1, keepdim=True)
        deviation = centered.square().mean(1).sqrt()
        flat = deviation <= 1e-6 * g.flatten(1).abs().amax(1)
        factor = torch.where(flat, torch.zeros_like(deviation), 1 / (deviation + _TINY))
        return (factor[:, None] * centered).view_as(g)

    return _stateless(rule)


def momentum(decay: float = 0.9) -> Update:
    """m <- decay * m + g, from m = 0; the step is m.  Source: Polyak 1964 (heavy ball)."""

    def init(leaves: Latent) -> Latent:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}

    def update(
        steps: Latent, state: Latent, leaves: Latent, progress: float
    ) -> tuple[Latent, Latent]:
        moving = {name: decay * state[name] + g for name, g in steps.items()}
        return moving, moving

    return Update(init, update)


def adam(
    rate: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    schedule: Schedule = constant,
) -> Update:
    """rate * m_hat / (sqrt(v_hat) + epsilon), with m and v the decayed means of g and g^2.

    ``rate`` is multiplied by ``schedule(progress)``.  A step whose size is zero still feeds the
    moments, as in torch's Adam.  Source: Kingma & Ba 2015, algorithm 1.
    """
    first, second = betas

    def init(leaves: Latent) -> tuple[int, Latent, Latent]:
        means = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        return 0, means, means

    def update(
        steps: Latent, state: tuple[int, Latent, Latent], leaves: Latent, progress: float
    ) -> tuple[Latent, tuple[int, Latent, Latent]]:
        count = state[0] + 1
        means = {name: state[1][name].lerp(g, 1 - first) for name, g in steps.items()}
        squares = {
            name: state[2][name] * second + g.square() * (1 - second) for name, g in steps.items()
        }
        size = rate * schedule(progress) / (1 - first**count)
        moved = {
            name: size * mean / (squares[name].sqrt() / (1 - second**count) ** 0.5 + epsilon)
            for name, mean in means.items()
        }
        return moved, (count, means, squares)

    return Update(init, update)


def on_shell(radius: float | None = None) -> Update:
    """x - radius * (x - g) / |x - g|: after the step each row of each leaf has the norm ``radius``.

    Without one it is sqrt(d) for rows of d numbers, near which standard normal noise lies.  Comes
    last in a chain.  Source: Samuel et al. 2023 (arXiv 2306.08687) for the shell.
    """

    def rule(g: Tensor, leaf: Tensor, progress: float) -> Tensor:
        wanted = leaf[0].numel() ** 0.5 if radius is None else radius
        moved = leaf - g
        norm = moved.flatten(1).norm(dim=1) + _TINY
        return leaf - _beside(wanted / norm, moved) * moved

    return _stateless(rule)


def zerocap_steps(rate: float = 0.3, power: float = 0.9) -> Update:
    """ZeroCap's context update: ``normalize`` alone.  Source: Tewel et al. 2022, section 3."""
    return chain(normalize(rate, power))


def noise_steps(rate: float = 0.1, decay: float = 0.9, largest: float = 1.0) -> Update:
    """Moves noise and keeps it noise: clipped momentum, then back to the shell of norm sqrt(d).

    Source: Eyring et al. 2024 (ReNO, arXiv 2406.04312) for a search of the initial noise with
    clipped gradients and momentum; the projection replaces its penalty on the norm.
    """
    return chain(clip(largest), momentum(decay), scale(rate), on_shell())


def ramp(progress: float, up: float = 0.05, down: float = 0.25) -> float:
    """The factor of the paper's schedule: linear rise over ``up``, cosine fall over ``down``.

    Source: Karras et al. 2020 (StyleGAN2), projection; used by StyleCLIP's optimisation.

    >>> ramp(0.0), ramp(0.5), round(ramp(0.875), 3)
    (0.0, 1.0, 0.5)
    """
    fall = min(1.0, (1 - progress) / down)
    cosine = 0.5 - 0.5 * math.cos(math.pi * fall)
    return cosine * min(1.0, progress / up)


def _stateless(rule: Callable[[Tensor, Tensor, float], Tensor]) -> Update:
    """A rule for each leaf by itself: its step, the leaf and the progress give the next step."""

    def update(steps: Latent, state: None, leaves: Latent, progress: float) -> tuple[Latent, None]:
        return {name: rule(g, leaves[name], progress) for name, g in steps.items()}, None

    return Update(lambda leaves: None, update)


def _beside(rows: Tensor, like: Tensor) -> Tensor:
    """Numbers [B] as [B, 1, ...] beside a tensor [B, ...]."""
    return rows.view(-1, *[1] * (like.ndim - 1))
