"""A denoiser that an objective steers: its prediction of x0 shifted against the gradient.

The shift is turned back into the kind of output that the scheduler expects, so that every solver,
also one with a memory, sees a consistent model.  Rows never mix.

Source: Dhariwal & Nichol 2021, algorithm 2 (the gradient through the model); Bansal et al. 2023
(Universal Guidance), eq. 6 and algorithm 1; He et al. 2024 (MPGD) for the gradient at x0; Yu et al.
2023 (FreeDoM), algorithm 2, for visiting a level again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from guided.core.objective import BoundObjective, Candidate, LossContext, Objective
from guided.core.protocols import Scorer
from guided.core.seeds import Seeds
from guided.errors import CannotDo, UsageError
from guided.guidance.denoise_estimates import Cutouts, Decode, DraftDecoder, LatentScorer
from guided.guidance.denoise_levels import Level, Levels
from guided.guidance.denoiser import Condition, Denoiser, Prediction

Jacobian = Literal["stop", "exact"]
Unit = Literal["noise", "cfg", "raw"]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How an objective steers.

    ``scale`` is the length of a step in a unit that depends on neither model nor loss: "noise",
    the deviation of x0 given the noisy sample (of unit data) times the root of its size; "cfg",
    how far classifier-free guidance itself moved x0; or "raw", the plain gradient: x0 - scale *
    dL/dx0, or for the exact one x0 - scale * (noise^2 / signal) * dL/dx, classifier guidance.

    ``jacobian``: "stop" takes the gradient at x0, "exact" at the model's input, through the model.
    ``decode``: how a loss sees x0: the full decoder, a tiny one, a linear preview, or not at all
    (``latent_scorer``).  Of the model's evaluations those with progress in [window[0], window[1])
    are guided, and of these each ``every``-th; ``recurrence`` visits each of them so many times.
    """

    objective: Objective
    scorer: Scorer | None = None
    prompts: tuple[str, ...] = ()
    scale: float = 0.1
    unit: Unit = "noise"
    jacobian: Jacobian = "stop"
    decode: Decode = "vae"
    every: int = 1
    window: tuple[float, float] = (0.0, 1.0)
    recurrence: int = 1
    cutouts: Cutouts | None = None
    latent_scorer: LatentScorer | None = None
    models: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low, high = self.window
        if not 0 <= low <= high <= 1:
            raise UsageError(f"The window must be 0 <= from <= to <= 1, not {low} to {high}.")
        if self.every < 1 or self.recurrence < 1:
            raise UsageError(
                f"every and recurrence must be 1 or more, not {self.every} and {self.recurrence}."
            )
        if self.decode == "latent" and self.latent_scorer is None:
            raise CannotDo(
                "decode = 'latent' needs a scorer of latents.",
                hint="Name a latent_scorer, or take decode vae, tiny or preview.",
            )

    def guides(self, index: int, total: int) -> bool:
        """Whether the model's evaluation ``index`` of ``total`` is guided."""
        if self.scale == 0 or not self.objective.terms:
            return False
        first = next((i for i in range(total) if i / total >= self.window[0]), total)
        inside = first <= index and index / total < self.window[1]
        return inside and (index - first) % self.every == 0


@dataclass
class GuidedDenoiser:
    """``denoiser`` with its x0 shifted as ``guidance`` says, on the schedule of ``levels``.

    A run begins before evaluation ``first``.  The objective is bound at the first guided step to
    ``source``, or where there is none to the x0 predicted there; either is ``start`` from then on.
    ``guided`` counts the rows of guided steps, ``skipped`` those of them whose loss or gradient was
    not finite: they go unguided.
    """

    denoiser: Denoiser
    guidance: Guidance
    levels: Levels
    seeds: Seeds
    first: int = 0
    source: Candidate | None = None
    guided: int = 0
    skipped: int = 0
    start: Candidate | None = field(init=False)
    _bound: BoundObjective | None = None

    def __post_init__(self) -> None:
        self.start = self.source

    def guides(self, level: Level) -> bool:
        """Whether the evaluation at a level is guided."""
        return self.guidance.guides(level.index - self.first, len(self.levels) - self.first)

    def predict(self, x_t: Tensor, level: Level, condition: Condition) -> Prediction:
        """The prediction with x0 shifted, or where this level is not guided the plain one.

        ``losses["skipped"]`` of its rows were not finite.
        """
        if not self.guides(level):
            return self.denoiser.predict(x_t, level, condition)
        sample: Tensor | None = None
        for visit in range(self.guidance.recurrence):
            prediction, delta, losses = self.shift(x_t, level, condition)
            output = level.shifted(prediction.output.detach(), delta)
            x0_hat = prediction.x0.detach() + delta
            if visit + 1 < self.guidance.recurrence:
                name = f"denoise/again/{level.index}/{visit}"
                eps = self.seeds.normal(x_t.shape[1:], name, x_t.device).to(x_t.dtype)
                x_t = level.renoise(x_t, x0_hat, self.levels.at(level.index + 1), eps)
                sample = self.levels.to_sample(x_t, level)
                x_t = self.levels.to_input(sample, level)
        return replace(
            prediction, x_t=x_t, output=output, x0_hat=x0_hat, losses=losses, resampled=sample
        )

    def shift(
        self, x_t: Tensor, level: Level, condition: Condition
    ) -> tuple[Prediction, Tensor, dict[str, float]]:
        """The plain prediction, the shift of its x0 [B, ...], and the losses behind it.

        The shift is zero for rows where guidance is not finite.
        """
        exact = self.guidance.jacobian == "exact"
        with torch.set_grad_enabled(exact):
            inputs = x_t.detach().requires_grad_(exact)
            prediction = self.denoiser.predict(inputs, level, condition)
            prediction = replace(prediction, x0_hat=prediction.x0)
        with torch.enable_grad():
            x0_hat = prediction.x0 if exact else prediction.x0.detach().requires_grad_(True)
            draft = self._draft(x0_hat, level, condition)
            total, parts = self._bind(draft, condition)(draft)
            gradient = torch.autograd.grad(
                total.sum(), inputs if exact else x0_hat, allow_unused=True
            )[0] if total.requires_grad else None  # fmt: skip
        flat = torch.zeros_like(x_t) if gradient is None else gradient.detach()
        delta = -self._scale_gradient(flat, prediction)
        finite = torch.isfinite(total.detach()) & torch.isfinite(delta).flatten(1).all(1)
        self.guided += len(finite)
        self.skipped += int((~finite).sum())
        losses = {name: float(value.detach().mean()) for name, value in parts.items()}
        losses.update(total=float(total.detach().mean()), skipped=float((~finite).sum()))
        shift = torch.where(_append_dims(finite, delta), delta, torch.zeros_like(delta))
        return prediction, shift, losses

    def _scale_gradient(self, gradient: Tensor, prediction: Prediction) -> Tensor:
        """The gradient at the length that ``scale`` and ``unit`` ask for."""
        scale, level = self.guidance.scale, prediction.level
        if self.guidance.unit == "raw":
            exact = self.guidance.jacobian == "exact"
            return scale * (level.sigma**2 / max(level.alpha, 1e-6) if exact else 1.0) * gradient
        length = gradient.flatten(1).norm(dim=1)
        if self.guidance.unit == "cfg":
            delta = prediction.text_delta
            if delta is None:
                raise CannotDo("unit = 'cfg' needs cfg above 1.", hint="Take unit = 'noise'.")
            zero = torch.zeros_like(delta)
            moved = level.x0_of(zero, delta) - level.x0_of(zero, zero)
            radius = prediction.cfg * moved.flatten(1).norm(dim=1)
        else:
            radius = torch.full_like(length, level.posterior_std * gradient[0].numel() ** 0.5)
        factor = torch.where(length > 0, scale * radius / length, torch.zeros_like(length))
        return _append_dims(factor, gradient) * gradient

    def _draft(self, x0_hat: Tensor, level: Level, condition: Condition) -> Candidate:
        guide = self.guidance
        decoder = DraftDecoder(
            condition.decode_latents, guide.decode, guide.cutouts, guide.latent_scorer
        )
        progress = level.index / len(self.levels)
        return decoder.draft(x0_hat, level.sigma, progress, self.seeds, self.start)

    def _bind(self, draft: Candidate, condition: Condition) -> BoundObjective:
        """The objective, bound once."""
        if self._bound is None:
            guide, start = self.guidance, self.source
            if start is None:
                decoder = DraftDecoder(
                    condition.decode_latents, guide.decode, guide.cutouts, guide.latent_scorer
                )
                fixed = draft.latent["x0"].detach()
                start = decoder.draft(fixed, 0.0, draft.progress, self.seeds, None)
            self.start = start
            scene = LossContext(guide.scorer, guide.prompts, start, guide.models, guide.extras)
            self._bound = guide.objective.bind(scene)
        return self._bound


def guided(
    denoiser: Denoiser,
    guidance: Guidance,
    levels: Levels,
    seeds: Seeds,
    *,
    first: int = 0,
    source: Candidate | None = None,
) -> GuidedDenoiser:
    """A denoiser steered by an objective: again a Denoiser.

    Raises:
        CannotDo: levels are to be visited again under a scheduler that remembers earlier steps.
    """
    if guidance.recurrence > 1 and not levels.kind.single:
        raise CannotDo(
            f"{levels.scheduler_name} remembers earlier steps, so a step cannot be visited again.",
            hint="For recurrence take --scheduler ddim, ddpm, euler, euler-a or flow.",
        )
    return GuidedDenoiser(denoiser, guidance, levels, seeds, first, source)


def _append_dims(rows: Tensor, like: Tensor) -> Tensor:
    """Numbers [B] as [B, 1, ...] beside a tensor [B, ...]."""
    return rows.view(-1, *[1] * (like.ndim - 1))
