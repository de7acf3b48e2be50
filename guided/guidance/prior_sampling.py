"""From words to embeddings of pictures: noise denoised by a prior, the best of several tries.

Source: Ramesh et al. 2022 (unCLIP), section 2.2: of several samples the one whose dot product with
the text's embedding is highest is kept.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from typing import Any, Protocol

import torch
from torch import Tensor

from guided.core.run import Step, renumber
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError, UsageError
from guided.guidance.denoise import Denoising


class PriorModel(Protocol):
    """A prior with its words already read."""

    @property
    def width(self) -> int:
        """The width of embeddings."""
        ...

    @property
    def scheduler(self) -> Any:
        """The scheduler of diffusers' that it learnt with; a run changes it."""
        ...

    def predict(self, given: Tensor, time: Any) -> Tensor:
        """Outputs for noisy embeddings [B, D], or for [2B, D]: B without words, then B with."""
        ...

    def denormalize(self, inside: Tensor) -> Tensor:
        """Unit embeddings [B, D] of clean samples."""
        ...


class _Loop:
    """What the denoising loop drives; there is nothing to look at on the way."""

    def __init__(self, prior: PriorModel) -> None:
        self.predict = prior.predict

    def decode_latents(self, latents: Tensor, decode: Any) -> Tensor:
        """Never asked for: an embedding has no picture."""
        raise CannotDo("An embedding has no picture before it is decoded.")

    def preview(self, latents: Tensor) -> Tensor:
        """Never asked for, as little as a picture."""
        return self.decode_latents(latents, "preview")


def sample_prior(
    prior: PriorModel,
    wanted: Tensor,
    seeds: Seeds,
    steps: int = 8,
    *,
    cfg: float = 1.0,
    tries: int = 1,
) -> Stream[Step[Any], None, Tensor]:
    """Unit embeddings [B, D] of pictures, yielding a Step for each evaluation of the prior.

    ``wanted`` [B, D] are the texts' unit embeddings; of ``tries`` samples of a row the one nearest
    to it is kept, and the first is the one that a single try gives.

    Raises:
        UsageError: no step, or no try.
        ShapeError: another number of seeds than rows.
    """
    if tries < 1:
        raise UsageError(f"tries must be 1 or more, not {tries}.")
    if wanted.shape != (len(seeds), prior.width):
        raise ShapeError(f"{list(wanted.shape)} texts were given for {len(seeds)} seeds.")
    best: Tensor | None = None
    for number in range(tries):
        noise = seeds.normal((prior.width,), f"imagine/{number}", wanted.device)
        loop = Denoising(_Loop(prior), prior.scheduler, noise, seeds, steps, cfg)
        inside = yield from renumber(loop.steps(), number, tries, "imagine")
        found = prior.denormalize(inside)
        if best is None:
            best = found
            continue
        nearer = (found * wanted).sum(1) > (best * wanted).sum(1)
        best = torch.where(nearer[:, None], found, best)
    assert best is not None
    return best
