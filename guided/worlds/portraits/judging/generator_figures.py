"""How well a generator of drawn portraits draws the world, judged by the reader.

Rows of the table are sets of pictures: real ones, what the generator makes of random latents, and
real ones made worse (blurred, noisy, all alike), so that each figure can be read between what
perfect and what useless pictures get.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guided.core.images import to_tensor
from guided.judging.distances import kernel_distance
from guided.worlds.portraits import KEYS, VALUES, draw, sample
from guided.worlds.portraits.attributes import chances, visible
from guided.worlds.portraits.judging.reader import Reader, ReaderOutput
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.training.degradation import blur


@dataclass(frozen=True)
class GeneratorFigures:
    """What the reader says of a set of pictures.

    ``confidence`` is the mean probability of its answers over visible attributes; ``drawn`` the
    share of pictures it takes for drawn portraits; ``variation`` for each attribute the total
    variation distance between its answers' shares and the world's chances, in [0, 1]; ``kid`` the
    kernel distance to real pictures over its features (0: the same); ``spread`` the mean distance
    between two pictures' features.  Features are divided by the root mean square of real ones.
    """

    confidence: float
    drawn: float
    variation: dict[str, float]
    kid: float
    spread: float

    @property
    def worst_variation(self) -> float:
        """The largest of the variation distances."""
        return max(self.variation.values())


def real_pictures(count: int, first: int, size: int = 128, split: Split = "val") -> Tensor:
    """Drawn portraits [count, 3, size, size] in [0, 1] of the world seeds from ``first`` on."""
    return to_tensor([draw(sample(first + i, split), size) for i in range(count)])


def spoiled(images: Tensor) -> dict[str, Tensor]:
    """Pictures [B, 3, H, W] in [0, 1] made worse: blurred, noisy, and the mean for everyone."""
    stream = torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=stream)
    return {
        "blur": blur(images, 2.0),
        "noise": (images + 0.2 * noise).clamp(0, 1),
        "mean": images.mean(0, keepdim=True).expand_as(images),
    }


def generator_figures(reader: Reader, images: Tensor, real: Tensor) -> GeneratorFigures:
    """The figures of pictures [B, 3, H, W] in [0, 1] against real features [N, F].

    Raises:
        ShapeError: fewer than two pictures.
    """
    readings, features = reader.read(images), reader.features(images)
    scale = real.square().mean().sqrt()
    return GeneratorFigures(
        confidence=_confidence(readings),
        drawn=float(np.mean([reading.drawn for reading in readings])),
        variation=variation(readings),
        kid=kernel_distance(features / scale, real / scale),
        spread=_spread(features / scale),
    )


def variation(readings: list[ReaderOutput]) -> dict[str, float]:
    """For each attribute the total variation between the readings' shares and the world's chances.

    The colour of a hat counts where a hat is read.
    """
    found = {}
    for key in KEYS:
        answers = [reading.attributes[key] for reading in readings]
        codes = [VALUES[key].index(answer) for answer in answers if answer is not None]
        shares = np.bincount(codes, minlength=len(VALUES[key])) / max(len(codes), 1)
        found[key] = float(0.5 * np.abs(shares - chances(key)).sum())
    return found


def _confidence(readings: list[ReaderOutput]) -> float:
    sure = []
    for reading in readings:
        seen = visible(reading.attributes)
        sure += [max(reading.probabilities[key].values()) for key in KEYS if seen[key]]
    return float(np.mean(sure))


def _spread(features: Tensor) -> float:
    """The mean distance between two different rows."""
    apart = torch.cdist(features.double(), features.double())
    return float(apart.sum() / (len(apart) * (len(apart) - 1)))
