"""Noise levels: what a denoiser's output says about the clean sample, under any scheduler.

Every scheduler's model input is x = a * x0 + s * noise for some a and s.  A model that predicts
the noise, v = a * noise - s * x0, the clean sample itself, or the flow noise - x0 thereby predicts
x0, and a shift of x0 is a shift of its output.  Guidance is written once, for x0.

Source: Salimans & Ho 2022 (v); Lipman et al. 2023 (flow); Song et al. 2021 (DDIM), eq. 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    """One noise level: model input = ``signal`` * x0 + ``noise`` * standard normal."""

    signal: float
    noise: float
    prediction: Prediction

    @property
    def unsure(self) -> float:
        """How far x0 is known: the deviation of x0 given the input, for data of deviation 1."""
        return self.noise / math.hypot(self.signal, self.noise)

    def clean(self, given: Tensor, output: Tensor) -> Tensor:
        """The x0 that a model's output [B, ...] for the input ``given`` [B, ...] stands for."""
        if self.prediction == "sample":
            return output
        if self.prediction == "v":
            return self.signal * given - self.noise * output
        if self.prediction == "flow":
            return given - self.noise * output
        return (given - self.noise * output) / max(self.signal, _SMALLEST)

    def shifted(self, output: Tensor, change: Tensor) -> Tensor:
        """The output that stands for x0 + ``change``; a change of 0 gives the same bits."""
        if self.prediction == "sample":
            return output + change
        if self.prediction == "epsilon":
            return output - (self.signal / max(self.noise, _SMALLEST)) * change
        return output - change / max(self.noise, _SMALLEST)

    def noise_of(self, given: Tensor, clean: Tensor) -> Tensor:
        """The noise in an input whose clean sample is ``clean``."""
        return (given - self.signal * clean) / max(self.noise, _SMALLEST)

    def again(self, given: Tensor, clean: Tensor, lower: Level, fresh: Tensor) -> Tensor:
        """An input at this level again: one DDIM step down to ``lower``, then noised back up.

        ``fresh`` [B, ...] is standard normal.  Source: Bansal et al. 2023 (Universal Guidance),
        algorithm 1, the self-recurrence.
        """
        down = lower.signal * clean + lower.noise * self.noise_of(given, clean)
        ratio = self.signal / max(lower.signal, _SMALLEST)
        added = math.sqrt(max(self.noise**2 - (ratio * lower.noise) ** 2, 0.0))
        return ratio * down + added * fresh


class Levels:
    """The noise levels of a diffusers scheduler whose time steps are set, by evaluation.

    Raises:
        CannotDo: a scheduler, or a kind of prediction under it, that is not supported; the
            message lists what is.
    """

    def __init__(self, scheduler: Any) -> None:
        self.kind = kind_of(scheduler)
        self.prediction = prediction_of(scheduler)
        self._scheduler = scheduler

    def __len__(self) -> int:
        return len(self._scheduler.timesteps)

    def at(self, index: int) -> Level:
        """The level of the model's evaluation ``index``; clean after the last."""
        if index >= len(self):
            return Level(1.0, 0.0, self.prediction)
        if not self.kind.sigmas:
            time = int(self._scheduler.timesteps[index])
            kept = float(self._scheduler.alphas_cumprod[time])
            return Level(kept**0.5, (1 - kept) ** 0.5, self.prediction)
        ratio = float(self._scheduler.sigmas[index])
        if self.prediction == "flow":
            return Level(1 - ratio, ratio, "flow")
        signal = 1 / (1 + ratio**2) ** 0.5
        return Level(signal, ratio * signal, self.prediction)

    def to_sample(self, given: Tensor, index: int) -> Tensor:
        """The scheduler's own sample for a model input at evaluation ``index``."""
        return given / self.at(index).signal if self.kind.scaled else given


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
