"""Muon for several processes: each works out a part of the matrices' updates and tells the others.

Gradients are the same everywhere once they are averaged, so every process could do all of the
work, and it is a fifth of a small model's step on two processes.  Momenta are kept by all: they
cost little, and so a checkpoint is that of ``torch.optim.Muon``, for any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


class TeamMuon(torch.optim.Muon):
    """``torch.optim.Muon`` whose work is shared out among the processes that train together."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every matrix, the same bits on every process."""
        together = distributed.is_available() and distributed.is_initialized()
        world = distributed.get_world_size() if together else 1
        if world == 1:
            return super().step(closure)  # type: ignore[no-untyped-call]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rank = distributed.get_rank()
        every = [(p, group["momentum"]) for group in self.param_groups for p in group["params"]]
        moved = [(p, momentum) for p, momentum in every if p.grad is not None]
        owners = shared_out([_work(p) for p, _ in moved], world)
        gradients = [p.grad for p, _ in moved]
        for (p, momentum), owner in zip(moved, owners, strict=True):
            if owner != rank:
                self._remember(p, momentum)
                p.grad = None
        super().step()  # type: ignore[no-untyped-call]
        for (p, _), gradient in zip(moved, gradients, strict=True):
            p.grad = gradient
        for owner in range(world):
            _tell([p for (p, _), own in zip(moved, owners, strict=True) if own == owner], owner)
        return loss

    def _remember(self, p: Tensor, momentum: float) -> None:
        """Move the momentum of a matrix that another process updates, as torch's step does."""
        gradient, state = p.grad, self.state[p]
        if gradient is None:
            return
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)


def shared_out(work: Sequence[float], world: int) -> list[int]:
    """Which of ``world`` processes does each piece of work: the largest first, to the least laden.

    No process gets more than 4/3 of what it would in the best division (Graham 1969).
    """
    laden, owners = [0.0] * world, [0] * len(work)
    for place in sorted(range(len(work)), key=lambda i: (-work[i], i)):
        owner = min(range(world), key=lambda process: (laden[process], process))
        owners[place], laden[owner] = owner, laden[owner] + work[place]
    return owners


def _work(matrix: Tensor) -> float:
    """What a Newton-Schulz step multiplies for a matrix: two products with it and one of a side."""
    short, long = sorted(matrix.shape)
    return float(short * short * (2 * long + short))


def _tell(matrices: Sequence[Tensor], owner: int) -> None:
    """Give matrices of one process to all others, in one message."""
    if not matrices:
        return
    packed = torch.cat([matrix.flatten() for matrix in matrices])
    distributed.broadcast(packed, owner)
    parts = torch.split(packed, [matrix.numel() for matrix in matrices])
    for matrix, part in zip(matrices, parts, strict=True):
        matrix.copy_(part.view_as(matrix))
