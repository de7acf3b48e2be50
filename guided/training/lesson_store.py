"""What a latent scorer's teacher says of predicted latents, worked out once and kept on the disk.

The gradient of a caption's similarity through the decoder and the CLIP costs several times what the
student's whole step does, so it pays to look at each more than once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from guided.training.feature_store import ShardStore
from guided.training.world_data import Pool

_FORMAT = 1


@dataclass(frozen=True)
class Lesson:
    """What the student sees, and what it should say.

    ``latents`` [n, C, h, w] are clean ones as predicted at noise ``levels`` [n]; ``image`` [n, D]
    the unit embeddings of the true pictures, ``texts`` [n, D] those of their captions.  ``slope``
    [n, C, h, w] is the gradient at the latents of the decoded picture's similarity to ``asked``
    [n, D], where it was worked out.
    """

    latents: Tensor
    levels: Tensor
    image: Tensor
    texts: Tensor
    asked: Tensor
    slope: Tensor | None = None


class Teacher(Protocol):
    """Who knows the answers."""

    def lesson(self, rows: np.ndarray, seed: int) -> Lesson:
        """The lesson of some of the pool's rows, with its gradients; ``seed`` draws the noise."""
        ...


class LessonStore(ShardStore):
    """A lesson for every picture of a pool; ``mark`` names the models that it is of."""

    parts = ("latents", "levels", "image", "texts", "asked", "slope")

    def __init__(
        self, pool: Pool, teacher: Teacher, mark: str, device: torch.device, *,
        resident: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(pool, device, resident=resident)
        self.teacher, self.mark = teacher, mark

    @property
    def folder(self) -> Path:
        """Beside the pool's pictures."""
        return self.pool.folder / f"lessons{_FORMAT}-{self.mark}"

    def take(self, rows: np.ndarray) -> Lesson:
        """The lessons of rows, float32; waits for pictures."""
        return Lesson(*self.rows(rows))

    def found(self, rows: np.ndarray) -> Sequence[Tensor]:
        """The teacher's lesson of rows; of its gradients the directions."""
        lesson = self.teacher.lesson(rows, int(rows[0]))
        return [unit(part) if name == "slope" else part
                for name in self.parts if (part := getattr(lesson, name)) is not None]  # fmt: skip


def unit(gradients: Tensor) -> Tensor:
    """Gradients [n, C, h, w], of which only the direction counts, at a mean square of 1."""
    return gradients / gradients.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
