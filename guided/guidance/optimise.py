"""The one loop that moves a latent until an objective is small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from guided.core.objective import BoundObjective
from guided.core.protocols import Latent
from guided.core.run import Step
from guided.errors import CannotDo
from guided.guidance.updates import Update, descend

DraftT = TypeVar("DraftT")

Draw = Callable[[Latent, float], DraftT]


def optimise(
    leaves: Latent,
    draw: Draw[Any],
    objective: BoundObjective,
    update: Update,
    steps: int,
    *,
    label: str = "optimise",
) -> Iterator[Step[Any]]:
    """Yield a Step after each update; its draft holds the leaves as they are after that update.

    ``leaves`` maps names to [B, ...] starting values, which are not changed; ``draw(leaves,
    progress)`` makes the draft the objective judges; ``progress`` is index / steps.  Rows are
    independent: the gradient is that of the sum over rows.  The losses of Step i are those before
    update i; the last Step's draft is drawn anew after the last update.

    Raises:
        CannotDo: a loss or gradient that is not finite; the message names the part and the step.
    """
    current = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    state = update.init(current)
    for index in range(steps):
        progress = index / steps
        at = f"at step {index + 1} of {steps}"
        parts, gradients = _gradients(current, draw, objective, progress, at)
        moves, state = update.update(gradients, state, current, progress)
        current = descend(current, moves)
        with torch.no_grad():
            draft = draw(current, (index + 1) / steps)
        yield Step(index + 1, steps, label, parts, draft)


def _gradients(
    leaves: Latent, draw: Draw[Any], objective: BoundObjective, progress: float, at: str
) -> tuple[dict[str, float], Latent]:
    """The mean of each loss part and the gradient of the summed total for each leaf."""
    with torch.enable_grad():
        tracked = {name: leaf.detach().requires_grad_(True) for name, leaf in leaves.items()}
        total, parts = objective(draw(tracked, progress))
        _check_finite(parts, at)
        gradients = torch.autograd.grad(total.sum(), list(tracked.values()), allow_unused=True)
    found = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }
    for name, gradient in found.items():
        if not bool(torch.isfinite(gradient).all()):
            raise CannotDo(
                f"The gradient of {name!r} is not finite {at}.",
                hint="Lower the step size or the weights of the losses.",
            )
    means = {name: float(value.detach().mean()) for name, value in parts.items()}
    means["total"] = float(total.detach().mean())
    return means, found


def _check_finite(parts: dict[str, Tensor], at: str) -> None:
    for name, value in parts.items():
        if not bool(torch.isfinite(value).all()):
            raise CannotDo(
                f"The loss {name!r} is not finite {at}.",
                hint="Lower the step size or its weight; at step 1, check its inputs.",
            )
