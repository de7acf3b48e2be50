"""The noun of edits of latents: a Delta is a change of one, which an editor proposes for a prompt.

Every method answers in the same form, so strength, sweeps, interpolation, undo and continuing an
edit are the same for all: strength s shows start + s * change, 0 is the original, 1 what was asked
for, negative goes the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.core.protocols import Latent
from guided.errors import ShapeError


@dataclass(frozen=True)
class Delta:
    """A change of latents: ``start`` and ``change`` hold the same leaves, each [B, ...].

    ``method`` names who proposed it.  Leaves that do not move may be absent from ``change``.
    """

    start: Latent
    change: Latent
    method: str

    def __post_init__(self) -> None:
        for name, change in self.change.items():
            if name not in self.start or self.start[name].shape != change.shape:
                shapes = {key: list(leaf.shape) for key, leaf in self.start.items()}
                raise ShapeError(
                    f"The change of {name!r} is {list(change.shape)}; the start has {shapes}."
                )

    @classmethod
    def between(cls, start: Latent, end: Latent, method: str) -> Delta:
        """The change that leads from one latent to another."""
        return cls(start, {name: leaf - start[name] for name, leaf in end.items()}, method)

    @property
    def rows(self) -> int:
        """How many pictures it is about."""
        return next(iter(self.start.values())).shape[0]

    def at(self, strength: float | Sequence[float]) -> Latent:
        """The latents at a strength, or at one strength for each row."""
        return {
            name: leaf + _column(strength, leaf) * self.change.get(name, torch.zeros_like(leaf))
            for name, leaf in self.start.items()
        }

    def row(self, index: int) -> Delta:
        """The change of one picture, with a batch of one."""
        one = slice(index, index + 1)
        return Delta(
            {name: leaf[one] for name, leaf in self.start.items()},
            {name: leaf[one] for name, leaf in self.change.items()},
            self.method,
        )


def _column(strength: float | Sequence[float], leaf: Tensor) -> Tensor:
    values = leaf.new_tensor(strength)
    if values.ndim == 1 and values.shape[0] != leaf.shape[0]:
        raise ShapeError(f"{values.shape[0]} strengths were given for {leaf.shape[0]} pictures.")
    return values.reshape(-1, *[1] * (leaf.ndim - 1))
