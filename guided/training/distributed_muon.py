"""Muon for several processes: each works out a part of the matrices' updates and tells the others.

Gradients are the same everywhere once they are averaged, so every process could do all of the
work, and it is a fifth of a small model's step on two processes.  Momenta are kept by all: they
cost little, and so a checkpoint is that of ``torch.optim.Muon``, for any number of processes.
Updates are those of ``torch.optim.Muon`` to the bit, except that a processor without bf16 products
works them out in fp32.
Source: Jordan et al. 2024 (Muon); Liu et al. 2025 (``match_rms_adamw``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from guided.core.device import multiplies_bf16


class DistributedMuon(torch.optim.Muon):
    """``torch.optim.Muon`` whose work is shared out among the processes that train together."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every matrix, the same bits on every process."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        together = distributed.is_available() and distributed.is_initialized()
        world = distributed.get_world_size() if together else 1
        rank = distributed.get_rank() if together else 0
        every = [(p, group) for group in self.param_groups for p in group["params"]]
        moved = [(p, group) for p, group in every if p.grad is not None]
        owners = partition([_work(p) for p, _ in moved], world)
        for (p, group), owner in zip(moved, owners, strict=True):
            update = self._ahead(p, group)
            if owner == rank:
                _move(p, update, group)
        for owner in range(world if world > 1 else 0):
            _broadcast(
                [p for (p, _), own in zip(moved, owners, strict=True) if own == owner], owner
            )
        return loss

    def _ahead(self, p: Tensor, group: Mapping[str, Any]) -> Tensor:
        """The gradient's running mean, a step ahead of itself where Nesterov's is asked for."""
        state, momentum = self.state[p], group["momentum"]
        assert p.grad is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p.grad)
        kept: Tensor = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(kept, momentum) if group["nesterov"] else kept


def _move(p: Tensor, update: Tensor, group: Mapping[str, Any]) -> None:
    """Let a matrix decay, and move it along the polar factor of its update."""
    rows, columns = p.shape
    far = max(1.0, rows / columns) ** 0.5
    if group["adjust_lr_fn"] == "match_rms_adamw":
        far = 0.2 * max(rows, columns) ** 0.5
    lr = float(group["lr"])
    p.mul_(1 - lr * group["weight_decay"])
    polar = newton_schulz(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
    p.add_(polar, alpha=-lr * far)


def newton_schulz(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Nearly the nearest matrix [A, B] with singular values of 1, by Newton's and Schulz' steps."""
    a, b, c = coefficients
    kind = torch.bfloat16 if multiplies_bf16(matrix.device) else torch.float32
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(kind, copy=True)
    x = x.T if tall else x
    x.div_(x.norm().clamp(min=eps))
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def partition(work: Sequence[float], world: int) -> list[int]:
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


def _broadcast(matrices: Sequence[Tensor], owner: int) -> None:
    """Give matrices of one process to all others, in one message."""
    if not matrices:
        return
    packed = torch.cat([matrix.flatten() for matrix in matrices])
    distributed.broadcast(packed, owner)
    parts = torch.split(packed, [matrix.numel() for matrix in matrices])
    for matrix, part in zip(matrices, parts, strict=True):
        matrix.copy_(part.view_as(matrix))
