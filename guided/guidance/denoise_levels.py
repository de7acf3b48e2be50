"""Noise levels alpha and sigma: what a denoiser's output says about x0, under any scheduler.

Every scheduler's model input is x_t = alpha * x0 + sigma * eps.  A model that predicts eps,
v = alpha * eps - sigma * x0, the clean sample itself, or the flow eps - x0 thereby predicts x0, and
a shift of x0 is a shift of its output.  Guidance is written once, for x0.

Source: Salimans & Ho 2022 (v); Lipman et al. 2023 (flow); Song et al. 2021 (DDIM), eq. 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from guided.errors import CannotDo

Prediction = Literal["epsilon", "v", "sample", "flow"]
_PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon", "v_prediction": "v", "sample": "sample", "original_sample": "sample",
    "flow_prediction": "flow",
}  # fmt: skip
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Kind:
    """How a scheduler counts noise.

    ``sigmas``: it keeps a list of noise-to-signal ratios (else: alphas_cumprod by time step).
    ``scaled``: its samples are x / a, which it scales for the model.  ``single``: a step depends
    on the present sample alone, so that a level can be visited again.  ``predictions``: what it
    understands of a model.
    """

    sigmas: bool
    scaled: bool
    single: bool
    predictions: tuple[Prediction, ...]


_VP: tuple[Prediction, ...] = ("epsilon", "v", "sample")
_ANY: tuple[Prediction, ...] = ("epsilon", "v", "sample", "flow")
SUPPORTED: dict[str, Kind] = {
    "DDIMScheduler": Kind(False, False, True, _VP),
    "DDPMScheduler": Kind(False, False, True, _VP),
    "DPMSolverMultistepScheduler": Kind(True, False, False, _ANY),
    "EulerAncestralDiscreteScheduler": Kind(True, True, True, ("epsilon", "v")),
    "EulerDiscreteScheduler": Kind(True, True, True, _VP),
    "FlowMatchEulerDiscreteScheduler": Kind(True, False, True, ("flow",)),
    "HeunDiscreteScheduler": Kind(True, True, False, _VP),
    "LMSDiscreteScheduler": Kind(True, True, False, _VP),
    "PNDMScheduler": Kind(False, False, False, ("epsilon", "v")),
    "UniPCMultistepScheduler": Kind(True, False, False, _ANY),
}
"""The schedulers whose noise levels are known, by the name of their diffusers class."""


@dataclass(frozen=True)
class Level:
    """One noise level, x_t = ``alpha`` * x0 + ``sigma`` * eps, and what the model predicts there.

    ``index`` counts the model's evaluations, ``time`` is the scheduler's time step of this one.
    """

    alpha: float
    sigma: float
    prediction: Prediction
    index: int = 0
    time: Any = field(default=None, compare=False)

    @property
    def posterior_std(self) -> float:
        """How far x0 is known: the deviation of x0 given x_t, for data of deviation 1."""
        return self.sigma / math.hypot(self.alpha, self.sigma)

    def x0_of(self, x_t: Tensor, output: Tensor) -> Tensor:
        """The x0 [B, ...] that a model's output [B, ...] for ``x_t`` [B, ...] stands for."""
        if self.prediction == "sample":
            return output
        if self.prediction == "v":
            return self.alpha * x_t - self.sigma * output
        if self.prediction == "flow":
            return x_t - self.sigma * output
        return (x_t - self.sigma * output) / max(self.alpha, _SMALLEST)

    def shifted(self, output: Tensor, delta: Tensor) -> Tensor:
        """The output that stands for x0 + ``delta``; a delta of 0 gives the same bits."""
        if self.prediction == "sample":
            return output + delta
        if self.prediction == "epsilon":
            return output - (self.alpha / max(self.sigma, _SMALLEST)) * delta
        return output - delta / max(self.sigma, _SMALLEST)

    def eps_of(self, x_t: Tensor, x0: Tensor) -> Tensor:
        """The noise in ``x_t`` if its clean sample is ``x0``."""
        return (x_t - self.alpha * x0) / max(self.sigma, _SMALLEST)

    def renoise(self, x_t: Tensor, x0: Tensor, lower: Level, eps: Tensor) -> Tensor:
        """An x_t of this level again: one DDIM step down to ``lower``, then noised back up.

        ``eps`` [B, ...] is standard normal.  Source: Bansal et al. 2023 (Universal Guidance),
        algorithm 1, the self-recurrence.
        """
        down = lower.alpha * x0 + lower.sigma * self.eps_of(x_t, x0)
        ratio = self.alpha / max(lower.alpha, _SMALLEST)
        added = math.sqrt(max(self.sigma**2 - (ratio * lower.sigma) ** 2, 0.0))
        return ratio * down + added * eps


class Levels:
    """The noise levels of a diffusers scheduler whose time steps are set, by evaluation.

    Raises:
        CannotDo: a scheduler, or a kind of prediction under it, that is not supported; the
            message lists what is.
    """

    def __init__(self, scheduler: Any) -> None:
        self.kind = kind_of(scheduler)
        self.prediction = prediction_of(scheduler)
        self.scheduler_name = type(scheduler).__name__
        self._scheduler = scheduler

    def __len__(self) -> int:
        return len(self._scheduler.timesteps)

    def at(self, index: int) -> Level:
        """The level of the model's evaluation ``index``; clean after the last."""
        if index >= len(self):
            return Level(1.0, 0.0, self.prediction, index)
        time = self._scheduler.timesteps[index]
        if not self.kind.sigmas:
            power = float(self._scheduler.alphas_cumprod[int(time)])
            return Level(power**0.5, (1 - power) ** 0.5, self.prediction, index, time)
        ratio = float(self._scheduler.sigmas[index])
        if self.prediction == "flow":
            return Level(1 - ratio, ratio, "flow", index, time)
        alpha = 1 / (1 + ratio**2) ** 0.5
        return Level(alpha, ratio * alpha, self.prediction, index, time)

    def to_input(self, sample: Tensor, level: Level) -> Tensor:
        """The model's input x_t for the scheduler's own sample at a level."""
        scale = getattr(self._scheduler, "scale_model_input", None)
        x_t: Tensor = sample if scale is None else scale(sample, level.time)
        return x_t

    def to_sample(self, x_t: Tensor, level: Level) -> Tensor:
        """The scheduler's own sample for a model's input at a level."""
        return x_t / level.alpha if self.kind.scaled else x_t


def kind_of(scheduler: Any) -> Kind:
    """How a diffusers scheduler counts noise.

    Raises:
        CannotDo: it is not supported, or is set up in a way that is not.
    """
    name = type(scheduler).__name__
    if name not in SUPPORTED:
        raise CannotDo(
            f"The scheduler {name} is not supported; supported: {', '.join(SUPPORTED)}.",
            hint="Name one with --scheduler.",
        )
    if name == "PNDMScheduler" and not scheduler.config.skip_prk_steps:
        raise CannotDo(
            "PNDMScheduler is supported with skip_prk_steps only.", hint="Take --scheduler dpm++."
        )
    return SUPPORTED[name]


def prediction_of(scheduler: Any) -> Prediction:
    """What the scheduler's model predicts.

    Raises:
        CannotDo: a kind of prediction the scheduler does not understand.
    """
    name, kind = type(scheduler).__name__, kind_of(scheduler)
    stated = (
        "flow_prediction" if kind.predictions == ("flow",) else scheduler.config.prediction_type
    )
    found = _PREDICTIONS.get(stated)
    if found not in kind.predictions:
        raise CannotDo(
            f"{name} cannot take a model that predicts {stated!r}; "
            f"it takes: {', '.join(kind.predictions)}.",
            hint="Name another one with --scheduler.",
        )
    return found
