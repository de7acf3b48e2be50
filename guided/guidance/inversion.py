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
from guided.guidance.denoise import Denoiser
from guided.guidance.denoise_levels import Level
from guided.guidance.walk import Path, Walk, moved, started

Inversion = Literal["ddim", "ddpm"]


def invert(
    model: Denoiser,
    scheduler: Any,
    latents: Tensor,
    seeds: Seeds,
    steps: int,
    *,
    first: int = 0,
    kind: Inversion = "ddim",
    cfg: float = 1.0,
    rounds: int = 3,
    known: Path | None = None,
) -> Stream[Step[Any], None, Path]:
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
    walk = Walk(model, scheduler, latents, seeds, steps, cfg, first=first)
    levels, left = walk.levels, len(walk.levels) - first
    eta = 1.0 if kind == "ddpm" else 0.0
    states = [latents] if known is None else list(known.states)
    added: list[Tensor] = [] if known is None else list(known.added)
    if len(added) >= left:
        return Path(states, added, eta).end(left)
    left -= len(added)
    for done, index in enumerate(reversed(range(first, first + left))):
        here, lower = levels.at(index), levels.at(index + 1)
        if kind == "ddpm":
            fresh = seeds.normal(latents.shape[1:], f"invert/{index}", latents.device)
            state = started(latents, fresh.to(latents.dtype), here)
            mean = moved(here, lower, state, _clean(walk, state, index), eta)
        else:
            state, mean = _before(walk, states[0], index, rounds)
        added.insert(0, states[0] - mean)
        states.insert(0, state)
        yield Step(done + 1, left, "invert")
    return Path(states, added, eta)


def _before(walk: Walk, after: Tensor, index: int, rounds: int) -> tuple[Tensor, Tensor]:
    """The sample whose step of DDIM at evaluation ``index`` gives ``after``, nearly, and what it
    gives.  Each row keeps its best round.
    """
    here, lower = walk.levels.at(index), walk.levels.at(index + 1)
    state = best = given = after
    least = after.new_full((len(after),), float("inf"))
    for _ in range(rounds + 1):
        clean = _clean(walk, state, index)
        mean = moved(here, lower, state, clean, 0.0)
        left = (after - mean).flatten(1).norm(dim=1).nan_to_num(float("inf"))
        better = (left < least).view(-1, *[1] * (after.ndim - 1))
        best, given = torch.where(better, state, best), torch.where(better, mean, given)
        least = torch.minimum(left, least)
        state = _solved(here, lower, state, clean, after)
    return best, given


def _solved(here: Level, lower: Level, state: Tensor, clean: Tensor, after: Tensor) -> Tensor:
    """The sample that a step would come from, if the model said of it what it says of ``state``.

    What it says of the noise changes least under little noise, and always where that is what it
    predicts; else what it says of the clean sample.
    """
    noisy = here.noise > here.signal and here.prediction != "epsilon"
    if lower.noise > 0 and (noisy or here.prediction == "sample"):
        return here.signal * clean + here.noise / lower.noise * (after - lower.signal * clean)
    noise = here.noise_of(state, clean)
    return here.signal / lower.signal * (after - lower.noise * noise) + here.noise * noise


def _clean(walk: Walk, state: Tensor, index: int) -> Tensor:
    """The clean sample that the model predicts of ``state`` before evaluation ``index``."""
    with torch.no_grad():
        _, clean = walk._output(state, index, walk.scheduler.timesteps[index], {}, guided=False)
    return clean
