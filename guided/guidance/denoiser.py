"""The denoiser contract: a model's own output at a noise level, read as x0, eps or v.

``predict(x_t, level, condition) -> Prediction`` is all that a sampler asks.  Whatever steers is a
denoiser around a denoiser: ``ClassifierFree`` here, ``guided`` in ``guided_denoiser``.
Source: the contract of K. Crowson's k-diffusion, with the model's own output kept, so that where
nothing is shifted a scheduler gets the very bits that the model gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from guided.guidance.denoise_estimates import Decode
from guided.guidance.denoise_levels import Level


class Condition(Protocol):
    """A model with its prompts encoded.

    One that has ``embeds_guidance`` was told the scale of guidance: nothing is combined outside.
    """

    def predict(self, x_t: Tensor, time: object) -> Tensor:
        """Outputs for inputs [B, ...], or for [2B, ...]: B without words, then B with them."""
        ...

    def decode_latents(self, latents: Tensor, decode: Decode) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] of clean latents [B, C, h, w]; differentiable."""
        ...

    def preview(self, latents: Tensor) -> Tensor:
        """The same in haste, for somebody who watches."""
        ...


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a denoiser says of ``x_t`` [B, ...]: its own ``output``, and x0, eps and v of it.

    ``x0_hat`` is x0 where that was shifted.  ``text_delta`` is what the words change in the output,
    of which classifier-free guidance took ``cfg`` times.  ``losses`` are those that shifted it;
    ``resampled`` is the scheduler's sample where the denoiser drew another one at the same level.
    """

    x_t: Tensor
    output: Tensor
    level: Level
    x0_hat: Tensor | None = None
    text_delta: Tensor | None = None
    cfg: float = 1.0
    losses: Mapping[str, float] = field(default_factory=dict)
    resampled: Tensor | None = None

    @property
    def x0(self) -> Tensor:
        """The clean sample: Song et al. 2021 (DDIM), eq. 9, in terms of what the model predicts."""
        return self.level.x0_of(self.x_t, self.output) if self.x0_hat is None else self.x0_hat

    @property
    def eps(self) -> Tensor:
        """The noise, (x_t - alpha x0) / sigma."""
        return self.level.eps_of(self.x_t, self.x0)

    @property
    def v(self) -> Tensor:
        """The velocity, alpha eps - sigma x0: Salimans & Ho 2022."""
        return self.level.alpha * self.eps - self.level.sigma * self.x0


class Denoiser(Protocol):
    """Predicts x0 from x_t at a noise level, under a condition."""

    def predict(self, x_t: Tensor, level: Level, condition: Condition) -> Prediction:
        """The prediction for a model's inputs [B, ...]."""
        ...


class Plain:
    """The model alone."""

    def predict(self, x_t: Tensor, level: Level, condition: Condition) -> Prediction:
        """The model's output as it is."""
        return Prediction(x_t, condition.predict(x_t, level.time), level)


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance: u + cfg * (w - u) of outputs without and with words.

    Source: Ho & Salimans 2022, eq. 6, with cfg = 1 + w there.
    """

    denoiser: Denoiser
    cfg: float

    def predict(self, x_t: Tensor, level: Level, condition: Condition) -> Prediction:
        """The combined output; a condition that was told the scale is left alone."""
        if self.cfg <= 1 or getattr(condition, "embeds_guidance", False):
            return self.denoiser.predict(x_t, level, condition)
        both = self.denoiser.predict(torch.cat([x_t] * 2), level, condition)
        without, words = both.output.chunk(2)
        output, delta = without + self.cfg * (words - without), (words - without).detach()
        return Prediction(x_t, output, level, text_delta=delta, cfg=self.cfg)
