"""From a picture's latents back to noise: paths whose replay gives the latents again.

DDIM's inversion solves each step backwards by a fixed point; the edit-friendly one draws the
samples of the path independently of one another.  Either way a path keeps what its steps leave
over, so that a replay told the same words ends at the latents, whatever the model.
Source: Song et al. 2021 (DDIM); Pan et al. 2023 (AIDI) for the fixed point; Huberman-Spiegelglas et
al. 2024 (edit-friendly DDPM); Ju et al. 2024 (PnP inversion) for keeping what is left over.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from typing import Any, Literal

import torch
from torch import Tensor

from guided.core.run import Step
from guided.core.seeds import Seeds
from guided.errors import UsageError
from guided.guidance.denoise_levels import Level
from guided.guidance.denoiser import Condition
from guided.guidance.edit_sampler import InversionTrajectory, PartialSampler, add_noise, ddim_mean

Inversion = Literal["ddim", "ddpm"]


def invert(
    model: Condition,
    scheduler: Any,
    latents: Tensor,
    seeds: Seeds,
    steps: int,
    *,
    first: int = 0,
    kind: Inversion = "ddim",
    cfg: float = 1.0,
    rounds: int = 3,
    known: InversionTrajectory | None = None,
) -> Stream[Step[Any], None, InversionTrajectory]:
    """The path to clean latents [B, C, h, w] from evaluation ``first`` of ``steps`` on.

    Yields a Step for each level.  ``model`` is told what the picture shows.  ``rounds`` improve the
    fixed point (ddim; each costs an evaluation); samples are drawn from ``seeds`` (ddpm).  What is
    ``known`` of the path already, found with the same model, words, steps and seeds, is its end,
    and only what comes before it is looked for.

    Raises:
        UsageError: fewer than one round.
        CannotDo: a scheduler that is not DDIM's or flow matching's.
    """
    if rounds < 1:
        raise UsageError(f"rounds must be 1 or more, not {rounds}.")
    sampler = PartialSampler(model, scheduler, latents, seeds, steps, cfg, first=first)
    levels, left = sampler.levels, len(sampler.levels) - first
    eta = 1.0 if kind == "ddpm" else 0.0
    states = [latents] if known is None else list(known.latents)
    added: list[Tensor] = [] if known is None else list(known.residuals)
    if len(added) >= left:
        return InversionTrajectory(states, added, eta).end(left)
    left -= len(added)
    for done, index in enumerate(reversed(range(first, first + left))):
        here, lower = levels.at(index), levels.at(index + 1)
        if kind == "ddpm":
            fresh = seeds.normal(latents.shape[1:], f"invert/{index}", latents.device)
            state = add_noise(latents, fresh.to(latents.dtype), here)
            mean = ddim_mean(here, lower, state, _clean(sampler, state, index), eta)
        else:
            state, mean = _before(sampler, states[0], index, rounds)
        added.insert(0, states[0] - mean)
        states.insert(0, state)
        yield Step(done + 1, left, "invert")
    return InversionTrajectory(states, added, eta)


def _before(
    sampler: PartialSampler, after: Tensor, index: int, rounds: int
) -> tuple[Tensor, Tensor]:
    """The sample whose step of DDIM at evaluation ``index`` gives ``after``, nearly, and what it
    gives.  Each row keeps its best round.
    """
    here, lower = sampler.levels.at(index), sampler.levels.at(index + 1)
    state = best = given = after
    least = after.new_full((len(after),), float("inf"))
    for _ in range(rounds + 1):
        clean = _clean(sampler, state, index)
        mean = ddim_mean(here, lower, state, clean, 0.0)
        left = (after - mean).flatten(1).norm(dim=1).nan_to_num(float("inf"))
        better = (left < least).view(-1, *[1] * (after.ndim - 1))
        best, given = torch.where(better, state, best), torch.where(better, mean, given)
        least = torch.minimum(left, least)
        state = _solved(here, lower, after, clean, here.eps_of(state, clean))
    return best, given


def invert_noise(
    model: Condition,
    scheduler: Any,
    latents: Tensor,
    seeds: Seeds,
    steps: int,
    *,
    tolerance: float = 0.005,
    most: int = 10,
) -> Stream[Step[Any], None, Tensor]:
    """The noise [B, C, h, w] that DDIM's steps lead to clean latents, nearly.

    As ``invert`` by a fixed point, which begins at what the steps before predict, continued in a
    straight line, and ends where a step leaves over less than ``tolerance`` (root mean square) or
    after ``most`` evaluations; each row by itself.  Mostly one evaluation a step is enough.  What
    is left over is not kept.
    Source: Pan et al. 2023 (AIDI) for the fixed point; Lu et al. 2022 (DPM-Solver), multistep, for
    the line through earlier predictions.

    Raises:
        CannotDo: a scheduler that is not DDIM's or flow matching's.
    """
    sampler = PartialSampler(model, scheduler, latents, seeds, steps, 1.0)
    after, earlier = latents, list[tuple[Tensor, Tensor]]()
    for done, index in enumerate(reversed(range(len(sampler.levels)))):
        here, lower = sampler.levels.at(index), sampler.levels.at(index + 1)
        state, clean, noise = after, after, after
        if earlier:
            two, one = earlier[0], earlier[-1]
            clean, noise = (2 * b - a for a, b in zip(two, one, strict=True))
            state = _solved(here, lower, after, clean, noise)
        waiting = torch.ones(len(after), 1, 1, 1, dtype=torch.bool, device=after.device)
        for _ in range(most):
            predicted = _clean(sampler, state, index)
            left = after - ddim_mean(here, lower, state, predicted, 0.0)
            clean = torch.where(waiting, predicted, clean)
            noise = torch.where(waiting, here.eps_of(state, predicted), noise)
            state = torch.where(waiting, _solved(here, lower, after, clean, noise), state)
            waiting = waiting & (left.square().mean((1, 2, 3), keepdim=True).sqrt() >= tolerance)
            if not bool(waiting.any()):
                break
        earlier, after = [*earlier[-1:], (clean, noise)], state
        yield Step(done + 1, len(sampler.levels), "invert")
    return after


def _solved(here: Level, lower: Level, after: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """The sample whose step gives ``after``, if the model said ``clean`` and ``noise`` of it.

    What it says of the noise changes least under little noise, and always where that is what it
    predicts; else what it says of the clean sample.
    """
    noisy = here.sigma > here.alpha and here.prediction != "epsilon"
    if lower.sigma > 0 and (noisy or here.prediction == "sample"):
        return here.alpha * clean + here.sigma / lower.sigma * (after - lower.alpha * clean)
    return here.alpha / lower.alpha * (after - lower.sigma * noise) + here.sigma * noise


def _clean(sampler: PartialSampler, state: Tensor, index: int) -> Tensor:
    """The clean sample that the model predicts of ``state`` before evaluation ``index``."""
    with torch.no_grad():
        return sampler.predict(state, sampler.levels.at(index)).x0
