"""The sampling loop: noise to clean latents under any scheduler, by any denoiser.

The loop knows no guidance: what steers is a denoiser around the model.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator as Stream
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guided.core.objective import Candidate
from guided.core.run import Step
from guided.core.seeds import Seeds
from guided.errors import ShapeError, UsageError
from guided.guidance.denoise_levels import Level, Levels
from guided.guidance.denoiser import ClassifierFree, Condition, Denoiser, Plain, Prediction
from guided.guidance.guided_denoiser import Guidance, GuidedDenoiser, guided

logger = logging.getLogger(__name__)


@dataclass
class Denoising:
    """One run of the loop: ``steps()`` yields a Step for each evaluation and returns latents.

    ``model`` is told its prompts; ``noise`` [B, C, h, w] is standard normal; ``scheduler`` is a
    fresh diffusers scheduler, which the run changes.  ``cfg`` and ``guidance`` become denoisers
    around the model's own: ``denoiser`` is the outermost.  Everything random comes from ``seeds``,
    a stream for each row.
    """

    model: Condition
    scheduler: Any
    noise: Tensor
    seeds: Seeds
    steps_wanted: int = 20
    cfg: float = 1.0
    guidance: Guidance | None = None
    eta: float = 0.0
    denoiser: Denoiser = field(init=False)
    guide: GuidedDenoiser | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.steps_wanted < 1:
            raise UsageError(f"steps must be 1 or more, not {self.steps_wanted}.")
        if len(self.seeds) != self.noise.shape[0]:
            raise ShapeError(f"{len(self.seeds)} seeds were given for {self.noise.shape[0]} rows.")
        prompts = self.guidance.prompts if self.guidance else ()
        if prompts and len(prompts) != len(self.seeds):
            raise ShapeError(f"{len(prompts)} prompts were given for {len(self.seeds)} rows.")
        self.scheduler.set_timesteps(self.steps_wanted, device=self.noise.device)
        self.levels = Levels(self.scheduler)
        self.denoiser = ClassifierFree(Plain(), self.cfg)
        if self.guidance is not None:
            self.denoiser = self.guide = self._guided(self.denoiser, self.guidance)

    def _guided(self, denoiser: Denoiser, guidance: Guidance) -> GuidedDenoiser:
        return guided(denoiser, guidance, self.levels, self.seeds)

    @property
    def guided(self) -> int:
        """How many rows of steps were to be guided so far."""
        return self.guide.guided if self.guide else 0

    @property
    def skipped(self) -> int:
        """How many of these went unguided, since their loss or gradient was not finite."""
        return self.guide.skipped if self.guide else 0

    def steps(self) -> Stream[Step[Candidate], None, Tensor]:
        """Yield a Step for each evaluation of the model; return clean latents [B, C, h, w].

        The Steps' drafts sketch the prediction so far, once their image is looked at.
        """
        sample, options = self._first_sample(), self._step_options()
        for index, time in enumerate(self.scheduler.timesteps):
            level = self.levels.at(index)
            with torch.no_grad():
                # x_t = alpha x0 + sigma eps (Kingma et al. 2021, eq. 1), the sample times c_in
                # (Karras et al. 2022, eq. 7); x0_hat of it by Song et al. 2021, eq. 9.
                prediction = self.predict(sample, level)
                if prediction.resampled is not None:  # Bansal et al. 2023, algorithm 1
                    sample = prediction.resampled
                # One step of the solver: Song et al. 2021, eq. 12 (ddim); Ho et al. 2020,
                # algorithm 2 (ddpm); Lu et al. 2022, algorithm 2 (dpm++); Karras et al. 2022,
                # algorithm 1 (euler, heun); Lipman et al. 2023, eq. 1 (flow).
                sample = self.scheduler.step(
                    prediction.output, time, sample, **options, return_dict=False
                )[0]
            yield self._step(prediction, index + 1, len(self.levels))
        self._report()
        return sample

    def predict(self, sample: Tensor, level: Level) -> Prediction:
        """The denoiser's prediction for the scheduler's sample [B, ...] at a level."""
        x_t = self.levels.to_input(sample, level)
        return self.denoiser.predict(x_t.detach(), level, self.model)

    def _step(self, prediction: Prediction, number: int, total: int) -> Step[Candidate]:
        start = self.guide.start if self.guide else None
        latent = {"x0": prediction.x0.detach()}
        draft = Candidate(latent, self._sketch, number / total, start)
        return Step(number, total, "denoise", dict(prediction.losses), draft)

    def _report(self) -> None:
        if self.skipped:
            logger.warning(
                "Guidance was not finite and skipped for %d of %d guided rows.",
                self.skipped,
                self.guided,
            )

    def _sketch(self, latent: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return self.model.preview(latent["x0"])

    def _first_sample(self) -> Tensor:
        noise = self.noise.detach()
        noise = noise.clone() if noise.is_inference() else noise
        return noise * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def _step_options(self) -> dict[str, Any]:
        """What the scheduler's step takes besides the sample."""
        known = inspect.signature(self.scheduler.step).parameters
        extra: dict[str, Any] = {}
        if "eta" in known:
            extra["eta"] = self.eta
        if "generator" in known:
            extra["generator"] = list(self.seeds.streams("denoise/noise"))
        return extra


def denoise(
    model: Condition,
    scheduler: Any,
    noise: Tensor,
    seeds: Seeds,
    steps: int = 20,
    *,
    cfg: float = 1.0,
    guidance: Guidance | None = None,
    eta: float = 0.0,
) -> Stream[Step[Candidate], None, Tensor]:
    """Noise [B, C, h, w] to clean latents: see Denoising, whose ``steps`` this is.

    Raises:
        UsageError: fewer than one step.
        ShapeError: another number of seeds or prompts than rows.
        CannotDo: a scheduler, or a way to use it, that is not supported.
    """
    run = Denoising(model, scheduler, noise, seeds, steps, cfg, guidance, eta)
    return run.steps()
