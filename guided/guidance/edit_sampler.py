"""From a given noisy sample to a picture: the loop of edits, by steps of DDIM whose noise is known.

A walk may begin anywhere on the schedule, repeat the noise that an inversion found, keep a part of
a source as it is, and be steered as any denoising is.
Source: Meng et al. 2022 (SDEdit); Song et al. 2021 (DDIM), eq. 12, for the step; Lugmayr et al.
2022 (RePaint), eq. 8, for the known part.
"""

from __future__ import annotations

import math
from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.core.objective import Candidate
from guided.core.run import Step
from guided.errors import CannotDo, ShapeError, UsageError
from guided.guidance.denoise import Denoising
from guided.guidance.denoise_levels import Level
from guided.guidance.denoiser import Denoiser
from guided.guidance.guided_denoiser import Guidance, GuidedDenoiser, guided


@dataclass(frozen=True)
class InversionTrajectory:
    """Samples that lead from noise to given latents, and what each step needs to follow them.

    ``latents`` are the samples [B, C, h, w] before evaluations first, first + 1, ... and at last
    the clean latents; ``residuals`` is what follows each step's mean, at ``eta``.
    """

    latents: Sequence[Tensor]
    residuals: Sequence[Tensor]
    eta: float = 0.0

    @property
    def steps(self) -> int:
        """How many evaluations it takes."""
        return len(self.residuals)

    def end(self, steps: int) -> InversionTrajectory:
        """Its last steps."""
        first = self.steps - steps
        return InversionTrajectory(self.latents[first:], self.residuals[first:], self.eta)


@dataclass(frozen=True)
class KnownRegion:
    """What stays: clean latents [B, C, h, w] where ``mask`` [B, 1, h, w] is 0, with their noise."""

    latents: Tensor
    mask: Tensor
    noise: Tensor

    def composite(self, sample: Tensor, level: Level) -> Tensor:
        """The sample at a level with the known part in its place."""
        source = level.alpha * self.latents + level.sigma * self.noise
        return self.mask * sample + (1 - self.mask) * source


def ddim_mean(here: Level, lower: Level, given: Tensor, clean: Tensor, eta: float) -> Tensor:
    """The mean of a sample one level lower: DDIM's step, of which ``eta`` leaves noise to add."""
    direction = math.sqrt(max(lower.sigma**2 - ddim_std(here, lower, eta) ** 2, 0.0))
    return lower.alpha * clean + direction * here.eps_of(given, clean)


def ddim_std(here: Level, lower: Level, eta: float) -> float:
    """The deviation of the noise that a step adds at ``eta``; 1 is DDPM's own."""
    lost = 1 - (here.alpha / max(lower.alpha, 1e-6)) ** 2
    return eta * lower.sigma / max(here.sigma, 1e-6) * math.sqrt(max(lost, 0.0))


@dataclass
class PartialSampler(Denoising):
    """A denoising that begins before evaluation ``first``: at ``sample``, at ``latents`` with noise
    (the clean ones of a picture), or at noise.

    ``residuals`` holds what follows each of the remaining steps' means, in place of fresh noise.
    ``beside`` is a path that the first half of the rows is held to; what holds it there is added
    to the second half too, so that rows told the same follow the same path.  ``source`` is what an
    objective takes for its start.
    """

    first: int = 0
    sample: Tensor | None = None
    latents: Tensor | None = None
    residuals: Sequence[Tensor] = ()
    beside: InversionTrajectory | None = None
    known: KnownRegion | None = None
    source: Candidate | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = self.levels.kind
        if kind.scaled or not kind.single:
            raise CannotDo(
                f"{type(self.scheduler).__name__} has no steps of its own kind to walk back.",
                hint="Edits and variations run with ddim, or flow for a model that predicts flow.",
            )
        if not 0 <= self.first <= len(self.levels):
            raise UsageError(f"A walk of {len(self.levels)} steps cannot begin at {self.first}.")
        left = len(self.levels) - self.first
        counts = [len(self.residuals)] if self.residuals else []
        counts += [self.beside.steps] if self.beside else []
        if any(count != left for count in counts):
            raise ShapeError(f"{counts[0]} steps are known of a walk of {left}.")

    def _guided(self, denoiser: Denoiser, guidance: Guidance) -> GuidedDenoiser:
        return guided(
            denoiser, guidance, self.levels, self.seeds, first=self.first, source=self.source
        )

    def steps(self) -> Stream[Step[Candidate], None, Tensor]:
        """Yield a Step for each evaluation; return clean latents [B, C, h, w]."""
        x_t = self._beginning()
        total = len(self.levels) - self.first
        for done in range(total):
            here, lower = (self.levels.at(self.first + done + each) for each in (0, 1))
            with torch.no_grad():
                prediction = self.predict(x_t, here)
                # Song et al. 2021 (DDIM), eq. 12: its mean, then what is known of its noise.
                x_t = ddim_mean(here, lower, x_t, prediction.x0, self.eta)
                x_t = x_t + self._after(x_t, here, lower, done)
                if self.known is not None:  # Lugmayr et al. 2022 (RePaint), eq. 8
                    x_t = self.known.composite(x_t, lower)
            yield self._step(prediction, done + 1, total)
        return x_t

    def _beginning(self) -> Tensor:
        """The sample that the walk begins with."""
        if self.sample is not None:
            return self.sample.detach()
        if self.latents is not None:
            return add_noise(self.latents, self.noise, self.levels.at(self.first))
        return self._first_sample()

    def _after(self, mean: Tensor, here: Level, lower: Level, done: int) -> Tensor:
        """What is added to a step's mean: what is known, or fresh noise."""
        if self.beside is not None:
            half = len(mean) // 2
            gap = self.beside.latents[done + 1] - mean[:half]
            return torch.cat([gap, gap])
        if self.residuals:
            return self.residuals[done]
        deviation = ddim_std(here, lower, self.eta)
        if deviation == 0:
            return torch.zeros_like(mean)
        name = f"walk/{self.first + done}"
        return deviation * self.seeds.normal(mean.shape[1:], name, mean.device).to(mean.dtype)


def add_noise(latents: Tensor, noise: Tensor, level: Level) -> Tensor:
    """Clean latents [B, C, h, w] with noise, as a sample at a level."""
    return level.alpha * latents + level.sigma * noise


def start_index(steps: int, share: float) -> int:
    """The evaluation to begin at, when a share of the ``steps`` of a schedule is to be walked.

    Raises:
        UsageError: a share outside of [0, 1].
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share of the steps that is walked must be in [0, 1], not {share}.")
    return steps - round(share * steps)
