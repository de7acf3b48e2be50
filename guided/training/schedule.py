"""How far a training is and how fast it learns there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from guided.errors import RecipeError


@dataclass(frozen=True)
class Budget:
    """When a training ends: after a number of samples, after some seconds, or what comes first."""

    samples: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.samples is None and self.seconds is None:
            raise RecipeError(
                "A training needs an end.", hint="Set samples, minutes or hours in the recipe."
            )

    def progress(self, samples: float, seconds: float) -> float:
        """How much of the budget is used, in [0, 1]; 1 when either limit is reached.

        >>> Budget(samples=100, seconds=60.0).progress(samples=50, seconds=45.0)
        0.75
        """
        used = [0.0]
        if self.samples is not None:
            used.append(samples / self.samples)
        if self.seconds is not None:
            used.append(seconds / self.seconds)
        return min(1.0, max(used))

    def seconds_left(self, samples: int, seconds: float) -> float:
        """The expected time to the end in seconds, at the mean speed so far."""
        progress = self.progress(samples, seconds)
        return math.inf if progress == 0 else seconds * (1 - progress) / progress


def learning_rate(progress: float, samples: int, warmup: int, final: float = 0.0) -> float:
    """The share of the highest learning rate: linear warm-up times a half cosine down to ``final``.

    ``progress`` in [0, 1] is the used budget, ``samples`` those after this step.

    >>> [round(learning_rate(p, 1000, 0), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    rising = min(1.0, samples / warmup) if warmup > 0 else 1.0
    falling = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    return rising * falling
