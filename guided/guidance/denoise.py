"""The loop that turns noise into pictures while an objective steers it.

At each guided step the model's prediction of the clean sample, x0, is shifted against the
objective's gradient and turned back into the kind of output the scheduler expects, so that every
solver, also one with a memory, sees a consistent model.  Rows never mix.

Source: Bansal et al. 2023 (Universal Guidance); He et al. 2024 (MPGD) for the gradient at x0.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator as Stream
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from guided.core.objective import BoundObjective, Draft, Objective, Scene
from guided.core.protocols import Scorer
from guided.core.run import Step
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError, UsageError
from guided.guidance.denoise_levels import Level, Levels
from guided.guidance.denoise_views import Cutouts, Decode, LatentScorer, Sight

logger = logging.getLogger(__name__)

Jacobian = Literal["stop", "exact"]
Unit = Literal["noise", "cfg", "raw"]


class Denoiser(Protocol):
    """A model with its prompts already encoded."""

    def predict(self, given: Tensor, time: Any) -> Tensor:
        """Outputs for inputs [B, ...], or for [2B, ...]: B without words, then B with them."""
        ...

    def picture(self, latents: Tensor, decode: Decode) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] of clean latents [B, C, h, w]; differentiable."""
        ...

    def sketch(self, latents: Tensor) -> Tensor:
        """The same in haste, for somebody who watches."""
        ...


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
class Denoising:
    """One run of the loop: ``steps()`` yields a Step for each evaluation and returns latents.

    ``noise`` [B, C, h, w] is standard normal; ``scheduler`` is a fresh diffusers scheduler, which
    the run changes.  ``cfg`` above 1 combines the outputs without and with words: u + cfg * (w - u)
    (Ho & Salimans 2022).  Everything random comes from ``seeds``, a stream for each row.
    """

    model: Denoiser
    scheduler: Any
    noise: Tensor
    seeds: Seeds
    steps_wanted: int = 20
    cfg: float = 1.0
    guidance: Guidance | None = None
    eta: float = 0.0
    skipped: int = 0
    guided: int = 0
    _bound: BoundObjective | None = None
    _start: Draft | None = None

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
        if self.guidance and self.guidance.recurrence > 1 and not self.levels.kind.single:
            raise CannotDo(
                f"{type(self.scheduler).__name__} remembers earlier steps, so a step cannot be "
                "visited again.",
                hint="For recurrence take --scheduler ddim, ddpm, euler, euler-a or flow.",
            )

    def steps(self) -> Stream[Step[Draft], None, Tensor]:
        """Yield a Step for each evaluation of the model; return clean latents [B, C, h, w].

        The Steps' drafts sketch the prediction so far, once their image is looked at.  A row whose
        loss or gradient is not finite goes unguided at that step: ``losses["skipped"]`` of them.
        """
        sample = self._first_sample()
        extra = self._step_options()
        total = len(self.levels)
        for index, time in enumerate(self.scheduler.timesteps):
            guided = self.guidance is not None and self.guidance.guides(index, total)
            losses: dict[str, float] = {}
            visits = self.guidance.recurrence if guided and self.guidance else 1
            for visit in range(visits):
                output, clean = self._output(sample, index, time, losses, guided=guided)
                if visit + 1 < visits:
                    sample = self._again(sample, clean, index, time, visit)
            with torch.no_grad():
                sample = self.scheduler.step(output, time, sample, **extra, return_dict=False)[0]
            draft = Draft({"x0": clean}, self._sketch, (index + 1) / total, self._start)
            yield Step(index + 1, total, "denoise", losses, draft)
        if self.skipped:
            logger.warning(
                "Guidance was not finite and skipped for %d of %d guided rows.",
                self.skipped,
                self.guided,
            )
        return sample

    def _sketch(self, latent: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return self.model.sketch(latent["x0"])

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

    def _given(self, sample: Tensor, time: Any) -> Tensor:
        scale = getattr(self.scheduler, "scale_model_input", None)
        scaled: Tensor = sample if scale is None else scale(sample, time)
        return scaled

    def _output(
        self, sample: Tensor, index: int, time: Any, losses: dict[str, float], *, guided: bool
    ) -> tuple[Tensor, Tensor]:
        """The model's output, guided or not, and the x0 it stands for."""
        level = self.levels.at(index)
        exact = guided and self.guidance is not None and self.guidance.jacobian == "exact"
        with torch.set_grad_enabled(exact):
            given = self._given(sample, time).detach().requires_grad_(exact)
            output, spread = self._predict(given, time)
            clean = level.clean(given, output)
        if guided and self.guidance is not None:
            change = self._change(given, clean, level, index, spread, losses)
            output = level.shifted(output.detach(), change)
            clean = clean.detach() + change
        return output.detach(), clean.detach()

    def _predict(self, given: Tensor, time: Any) -> tuple[Tensor, Tensor | None]:
        """The output, and the difference that the words make to it where both were computed."""
        if self.cfg <= 1:
            return self.model.predict(given, time), None
        without, words = self.model.predict(torch.cat([given] * 2), time).chunk(2)
        return without + self.cfg * (words - without), (words - without).detach()

    def _change(
        self,
        given: Tensor,
        clean: Tensor,
        level: Level,
        index: int,
        spread: Tensor | None,
        losses: dict[str, float],
    ) -> Tensor:
        """The shift of x0 [B, ...]; zero for rows where guidance is not finite."""
        assert self.guidance is not None
        exact = self.guidance.jacobian == "exact"
        with torch.enable_grad():
            seen = clean if exact else clean.detach().requires_grad_(True)
            progress = index / len(self.levels)
            draft = self._sight().draft(seen, level.noise, progress, self.seeds, self._start)
            bound = self._bind(draft)
            total, parts = bound(draft)
            gradient = torch.autograd.grad(
                total.sum(), given if exact else seen, allow_unused=True
            )[0] if total.requires_grad else None  # fmt: skip
        flat = torch.zeros_like(given) if gradient is None else gradient.detach()
        change = -self._stepped(flat, level, spread)
        fine = torch.isfinite(total.detach()) & torch.isfinite(change).flatten(1).all(1)
        self.guided += len(fine)
        self.skipped += int((~fine).sum())
        losses.update({name: float(value.detach().mean()) for name, value in parts.items()})
        losses.update(total=float(total.detach().mean()), skipped=float((~fine).sum()))
        return torch.where(_wide(fine, change), change, torch.zeros_like(change))

    def _stepped(self, gradient: Tensor, level: Level, spread: Tensor | None) -> Tensor:
        """The gradient at the length that ``scale`` and ``unit`` ask for."""
        assert self.guidance is not None
        scale = self.guidance.scale
        if self.guidance.unit == "raw":
            exact = self.guidance.jacobian == "exact"
            return scale * (level.noise**2 / max(level.signal, 1e-6) if exact else 1.0) * gradient
        length = gradient.flatten(1).norm(dim=1)
        if self.guidance.unit == "cfg":
            if spread is None:
                raise CannotDo("unit = 'cfg' needs cfg above 1.", hint="Take unit = 'noise'.")
            zero = torch.zeros_like(spread)
            moved = level.clean(zero, spread) - level.clean(zero, zero)
            radius = self.cfg * moved.flatten(1).norm(dim=1)
        else:
            radius = torch.full_like(length, level.unsure * gradient[0].numel() ** 0.5)
        factor = torch.where(length > 0, scale * radius / length, torch.zeros_like(length))
        return _wide(factor, gradient) * gradient

    def _sight(self) -> Sight:
        assert self.guidance is not None
        guide = self.guidance
        return Sight(self.model.picture, guide.decode, guide.cutouts, guide.latent_scorer)

    def _bind(self, draft: Draft) -> BoundObjective:
        """The objective, bound at the first guided step: that draft is the loop's start."""
        assert self.guidance is not None
        if self._bound is None:
            fixed = {name: leaf.detach() for name, leaf in draft.latent.items()}
            self._start = self._sight().draft(fixed["x0"], 0.0, draft.progress, self.seeds, None)
            guide = self.guidance
            scene = Scene(guide.scorer, guide.prompts, self._start, guide.models, guide.extras)
            self._bound = guide.objective.bind(scene)
        return self._bound

    def _again(self, sample: Tensor, clean: Tensor, index: int, time: Any, visit: int) -> Tensor:
        """The sample once more at the same level, with part of its noise drawn anew."""
        name = f"denoise/again/{index}/{visit}"
        fresh = self.seeds.normal(sample.shape[1:], name, sample.device).to(sample.dtype)
        here, lower = self.levels.at(index), self.levels.at(index + 1)
        given = here.again(self._given(sample, time), clean, lower, fresh)
        return self.levels.to_sample(given, index)


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    """Numbers [B] as [B, 1, ...] beside a tensor [B, ...]."""
    return rows.view(-1, *[1] * (like.ndim - 1))


def denoise(
    model: Denoiser,
    scheduler: Any,
    noise: Tensor,
    seeds: Seeds,
    steps: int = 20,
    *,
    cfg: float = 1.0,
    guidance: Guidance | None = None,
    eta: float = 0.0,
) -> Stream[Step[Draft], None, Tensor]:
    """Noise [B, C, h, w] to clean latents: see Denoising, whose ``steps`` this is.

    Raises:
        UsageError: fewer than one step.
        ShapeError: another number of seeds or prompts than rows.
        CannotDo: a scheduler, or a way to use it, that is not supported.
    """
    run = Denoising(model, scheduler, noise, seeds, steps, cfg, guidance, eta)
    return run.steps()
