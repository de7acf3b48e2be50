"""What a loss sees while noise becomes a picture: the predicted clean sample, decoded somehow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import Candidate
from guided.core.protocols import Scorer
from guided.core.seeds import Seeds
from guided.errors import UsageError

Decode = Literal["vae", "tiny", "preview", "latent"]


class LatentScorer(Protocol):
    """Embeds latents as a scorer embeds their pictures, without decoding them."""

    def embed_latents(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Unit vectors [B, D] of clean latents predicted at noise levels [B] in [0, 1]."""
        ...


@dataclass(frozen=True)
class Cutouts:
    """Random square parts of a picture, seen by the scorer in place of the whole.

    ``count`` parts a picture, their sides between ``smallest`` and 1 of the shorter side, drawn
    as smallest + (1 - smallest) * u^power with u uniform in [0, 1).  Each is resampled to
    ``size`` pixels.
    Source: the cutouts of K. Crowson's CLIP-guided diffusion.
    """

    count: int = 4
    smallest: float = 0.4
    power: float = 1.0
    size: int = 224

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.smallest <= 1 or self.power <= 0 or self.size < 1:
            raise UsageError(
                f"Cutouts need a count from 1 up, a smallest side in (0, 1], a power above 0 and "
                f"a size from 1 up, not {self.count}, {self.smallest}, {self.power}, {self.size}."
            )

    def places(self, height: int, width: int, streams: Sequence[torch.Generator]) -> Tensor:
        """Affine maps [B * count, 2, 3] of the parts, one stream of random numbers a row."""
        drawn = torch.stack([torch.rand(self.count, 3, generator=each) for each in streams])
        share = self.smallest + (1 - self.smallest) * drawn[..., 0] ** self.power
        short = min(height, width)
        theta = torch.zeros(*share.shape, 2, 3)
        for axis, (side, offset) in enumerate(((width, drawn[..., 1]), (height, drawn[..., 2]))):
            scale = share * short / side
            theta[..., axis, axis] = scale
            theta[..., axis, 2] = (2 * offset - 1) * (1 - scale)
        return theta.flatten(0, 1)

    def cut(self, images: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        """Parts [B * count, 3, size, size] of pictures [B, 3, H, W]; rows of a picture adjoin."""
        rows, channels, height, width = images.shape
        theta = self.places(height, width, streams).to(images)
        shape = (rows * self.count, channels, self.size, self.size)
        where = F.affine_grid(theta, list(shape), align_corners=False)
        many = images.repeat_interleave(self.count, dim=0)
        return F.grid_sample(many, where, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class DraftDecoder:
    """How drafts look: which decoder, through which cutouts or latent scorer.

    ``decode_latents(latents, decode)`` gives pictures [B, 3, H, W] in [0, 1].
    """

    decode_latents: Callable[[Tensor, Decode], Tensor]
    decode: Decode = "vae"
    cutouts: Cutouts | None = None
    latent_scorer: LatentScorer | None = None

    def draft(
        self, clean: Tensor, noise: float, progress: float, seeds: Seeds, start: Candidate | None
    ) -> Candidate:
        """The draft of predicted clean latents [B, C, h, w] at a noise level."""
        return X0Estimate(clean, self, noise, progress, seeds, start)


class X0Estimate(Candidate):
    """A draft whose latent is ``{"x0": [B, C, h, w]}``, the clean sample predicted so far.

    With cutouts, ``embed`` gives the unit mean of the parts' embeddings; with the decoder
    "latent" it asks the latent scorer and nothing is decoded (a loss that looks at pixels then
    gets the full decoder).
    """

    def __init__(
        self,
        clean: Tensor,
        decoder: DraftDecoder,
        noise: float,
        progress: float,
        seeds: Seeds,
        start: Candidate | None,
    ) -> None:
        self.decoder = decoder
        self.noise = noise
        self.seeds = seeds
        decode: Decode = "vae" if decoder.decode == "latent" else decoder.decode
        super().__init__(
            {"x0": clean},
            lambda latent: decoder.decode_latents(latent["x0"], decode),
            progress,
            start,
        )

    def embed(self, scorer: Scorer) -> Tensor:
        """The unit embedding [B, D], computed once for each scorer."""
        key = id(scorer)
        if key not in self._embeddings:
            self._embeddings[key] = (scorer, self._embed(scorer))
        return self._embeddings[key][1]

    def _embed(self, scorer: Scorer) -> Tensor:
        decoder, clean = self.decoder, self.latent["x0"]
        if decoder.decode == "latent" and decoder.latent_scorer is not None:
            level = clean.new_full((clean.shape[0],), self.noise)
            return decoder.latent_scorer.embed_latents(clean, level)
        if decoder.cutouts is None:
            return scorer.embed_images(self.image)
        streams = list(self.seeds.streams(f"denoise/cutouts/{self.progress:.6f}"))
        parts = scorer.embed_images(decoder.cutouts.cut(self.image, streams))
        together = parts.view(-1, decoder.cutouts.count, parts.shape[1]).mean(1)
        return F.normalize(together, dim=1)
