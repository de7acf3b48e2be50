"""Gaussian data, for which the perfect denoiser and every result are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext
from guided.core.run import Step
from guided.core.seeds import Seeds
from guided.guidance.denoise import Denoising
from guided.guidance.denoise_levels import Level
from guided.guidance.guided_denoiser import Guidance

PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass
class Gaussian:
    """The perfect model of data N(mean, deviation^2): it answers E[x0 | noisy], shifted by
    ``push`` where the level is not pure noise."""

    mean: Tensor
    deviation: float
    push: Tensor | None = None
    levels: dict[float, Level] = field(default_factory=dict)

    def clean(self, given: Tensor, level: Level) -> Tensor:
        a, s, variance = level.alpha, level.sigma, self.deviation**2
        kept = a * variance / (a**2 * variance + s**2)
        found = self.mean + kept * (given - a * self.mean)
        return found if self.push is None or a < 1e-3 else found + self.push

    def predict(self, given: Tensor, time: Any) -> Tensor:
        level = self.levels[float(time)]
        a, s, x0 = level.alpha, level.sigma, self.clean(given, level)
        noise = (given - a * x0) / s
        return {"epsilon": noise, "v": a * noise - s * x0, "sample": x0, "flow": noise - x0}[
            level.prediction
        ]

    def decode_latents(self, latents: Tensor, decode: str) -> Tensor:
        return latents[:, :3].sigmoid()

    def preview(self, latents: Tensor) -> Tensor:
        return self.decode_latents(latents, "preview")


@dataclass(frozen=True)
class Along(Loss):
    """Minus the inner product with the scene's direction: a linear loss of the latent."""

    modality = "latent"

    def bind(self, scene: LossContext) -> BoundLoss:
        direction = scene.extras["direction"]
        return lambda draft: -(draft.latent["x0"] * direction).flatten(1).sum(1)


@dataclass(frozen=True)
class Near(Loss):
    """Squared distance of the latent from zero."""

    modality = "latent"

    def bind(self, scene: LossContext) -> BoundLoss:
        return lambda draft: draft.latent["x0"].square().flatten(1).sum(1)


def make_scheduler(name: str, prediction: str) -> Any:
    import diffusers

    kind = getattr(diffusers, name)
    if name == "FlowMatchEulerDiscreteScheduler":
        return kind()
    if prediction == "flow":
        return kind(prediction_type="flow_prediction", use_flow_sigmas=True)
    plain = {"clip_sample": False} if name in ("DDIMScheduler", "DDPMScheduler") else {}
    more = {"skip_prk_steps": True, "steps_offset": 1} if name == "PNDMScheduler" else plain
    if name == "EulerAncestralDiscreteScheduler" or name == "EulerDiscreteScheduler":
        more = {"timestep_spacing": "trailing"}
    return kind(prediction_type=PREDICTIONS[prediction], **BETAS, **more)


def run(
    model: Gaussian,
    scheduler: Any,
    noise: Tensor,
    steps: int,
    guidance: Guidance | None = None,
    **more: Any,
) -> tuple[Tensor, list[Step[Candidate]], Denoising]:
    """The loop to its end: latents, Steps, and the run itself."""
    loop = Denoising(model, scheduler, noise, Seeds.of(0, len(noise)), steps, guidance=guidance,
                     **more)  # fmt: skip
    model.levels = {float(t): loop.levels.at(i) for i, t in enumerate(scheduler.timesteps)}
    seen = []
    stream = loop.steps()
    while True:
        try:
            seen.append(next(stream))
        except StopIteration as end:
            return end.value, seen, loop


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
