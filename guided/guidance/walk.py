"""From a given noisy sample to a picture: the loop of edits, by steps of DDIM whose noise is known.

A walk may begin anywhere on the schedule, repeat the noise that an inversion found, keep a part of
a source as it is, and be steered as any denoising is.
Source: Meng et al. 2022 (SDEdit); Song et al. 2021 (DDIM), eq. 12, for the step; Lugmayr et al.
2022 (RePaint), eq. 8, for the kept part.
"""

from __future__ import annotations

import math
from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.core.objective import BoundObjective, Draft, Scene
from guided.core.run import Step
from guided.errors import CannotDo, ShapeError, UsageError
from guided.guidance.denoise import Denoising
from guided.guidance.denoise_levels import Level


@dataclass(frozen=True)
class Path:
    """Samples that lead from noise to given latents, and what each step needs to follow them.

    ``states`` are the samples [B, C, h, w] before evaluations first, first + 1, ... and at last the
    clean latents; ``added`` is what follows each step's mean, at ``eta``.
    """

    states: Sequence[Tensor]
    added: Sequence[Tensor]
    eta: float = 0.0

    @property
    def steps(self) -> int:
        """How many evaluations it takes."""
        return len(self.added)

    def end(self, steps: int) -> Path:
        """Its last steps."""
        first = self.steps - steps
        return Path(self.states[first:], self.added[first:], self.eta)


@dataclass(frozen=True)
class Kept:
    """What stays: clean latents [B, C, h, w] where ``mask`` [B, 1, h, w] is 0, with their noise."""

    latents: Tensor
    mask: Tensor
    noise: Tensor

    def put_back(self, sample: Tensor, level: Level) -> Tensor:
        """The sample at a level with the kept part in its place."""
        source = level.signal * self.latents + level.noise * self.noise
        return self.mask * sample + (1 - self.mask) * source


def moved(here: Level, lower: Level, given: Tensor, clean: Tensor, eta: float) -> Tensor:
    """The mean of a sample one level lower: DDIM's step, of which ``eta`` leaves noise to add."""
    direction = math.sqrt(max(lower.noise**2 - spread(here, lower, eta) ** 2, 0.0))
    return lower.signal * clean + direction * here.noise_of(given, clean)


def spread(here: Level, lower: Level, eta: float) -> float:
    """The deviation of the noise that a step adds at ``eta``; 1 is DDPM's own."""
    lost = 1 - (here.signal / max(lower.signal, 1e-6)) ** 2
    return eta * lower.noise / max(here.noise, 1e-6) * math.sqrt(max(lost, 0.0))


@dataclass
class Walk(Denoising):
    """A denoising that begins before evaluation ``first``: at ``sample``, at ``latents`` with noise
    (the clean ones of a picture), or at noise.

    ``added`` holds what follows each of the remaining steps' means, in place of fresh noise.
    ``beside`` is a path that the first half of the rows is held to; what holds it there is added
    to the second half too, so that rows told the same follow the same path.  ``source`` is what an
    objective takes for its start.
    """

    first: int = 0
    sample: Tensor | None = None
    latents: Tensor | None = None
    added: Sequence[Tensor] = ()
    beside: Path | None = None
    kept: Kept | None = None
    source: Draft | None = None

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
        known = [len(self.added)] if self.added else []
        known += [self.beside.steps] if self.beside else []
        if any(count != left for count in known):
            raise ShapeError(f"{known[0]} steps are known of a walk of {left}.")
        self._start = self.source

    def steps(self) -> Stream[Step[Draft], None, Tensor]:
        """Yield a Step for each evaluation; return clean latents [B, C, h, w]."""
        sample = self._beginning()
        total = len(self.levels) - self.first
        for done in range(total):
            index = self.first + done
            here, lower = self.levels.at(index), self.levels.at(index + 1)
            guided = self.guidance is not None and self.guidance.guides(done, total)
            losses: dict[str, float] = {}
            time = self.scheduler.timesteps[index]
            output, clean = self._output(sample, index, time, losses, guided=guided)
            del output
            sample = moved(here, lower, sample, clean, self.eta)
            sample = sample + self._after(sample, here, lower, done)
            if self.kept is not None:
                sample = self.kept.put_back(sample, lower)
            draft = Draft({"x0": clean}, self._sketch, (done + 1) / total, self._start)
            yield Step(done + 1, total, "denoise", losses, draft)
        return sample

    def _beginning(self) -> Tensor:
        """The sample that the walk begins with."""
        if self.sample is not None:
            return self.sample.detach()
        if self.latents is not None:
            return started(self.latents, self.noise, self.levels.at(self.first))
        return self._first_sample()

    def _after(self, mean: Tensor, here: Level, lower: Level, done: int) -> Tensor:
        """What is added to a step's mean: what is known, or fresh noise."""
        if self.beside is not None:
            half = len(mean) // 2
            gap = self.beside.states[done + 1] - mean[:half]
            return torch.cat([gap, gap])
        if self.added:
            return self.added[done]
        deviation = spread(here, lower, self.eta)
        if deviation == 0:
            return torch.zeros_like(mean)
        name = f"walk/{self.first + done}"
        return deviation * self.seeds.normal(mean.shape[1:], name, mean.device).to(mean.dtype)

    def _bind(self, draft: Draft) -> BoundObjective:
        """The objective, bound to the source where there is one."""
        if self._bound is None and self.source is not None and self.guidance is not None:
            guide = self.guidance
            scene = Scene(guide.scorer, guide.prompts, self.source, guide.models, guide.extras)
            self._bound = guide.objective.bind(scene)
        return super()._bind(draft)


def started(latents: Tensor, noise: Tensor, level: Level) -> Tensor:
    """Clean latents [B, C, h, w] with noise, as a sample at a level."""
    return level.signal * latents + level.noise * noise


def first_of(steps: int, share: float) -> int:
    """The evaluation to begin at, when a share of the ``steps`` of a schedule is to be walked.

    Raises:
        UsageError: a share outside of [0, 1].
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share of the steps that is walked must be in [0, 1], not {share}.")
    return steps - round(share * steps)
