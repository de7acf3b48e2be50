"""Trains the prior: from a caption to the embedding of a picture that it is true of.

Pairs are the drawn world's pictures, embedded once by the frozen CLIP, and a fresh caption at each
visit.  The noisy embedding is denoised as a latent would be, and the clean one is predicted, with
its squared error; a tenth of the captions are left out, so that classifier-free guidance is
possible.
Source: Ramesh et al. 2022 (unCLIP), section 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.seeds import Seeds
from guided.generators.diffusion_words import Words
from guided.generators.unclip import CLIP, BoundPrior, prior_scheduler
from guided.guidance.imagine import imagine
from guided.nets.prior import PortraitPrior
from guided.scorers.clip import ClipScorer, load_clip
from guided.training.feature_store import FeatureStore
from guided.training.objective import (
    Metric,
    ObjectiveSettings,
    Parts,
    Product,
    Share,
)
from guided.training.pictures import Pictures
from guided.training.text_gan_world import DRAWN, Looks, without_kept_words, world_looks
from guided.training.told import ToldObjective

#: World seeds of the monitor's own portraits, far from those of every published figure.
MONITOR_SEED, MONITOR_COUNT = 6_300_000, 256
#: How the monitor imagines.
STEPS, TRIES = 8, 4
_LAYOUT = ("width", "heads", "layers", "words", "text_width", "embed_width")


class PriorSettings(ObjectiveSettings):
    """The ``[settings]`` of a prior's recipe."""

    scorer: str = Field("clip", description="the CLIP whose embeddings it speaks, by name")
    frozen: Precision = Field("bf16", description="precision of the frozen CLIP")
    pictures: int = Field(131_072, ge=64, description="drawn pictures in the pool")
    size: int = Field(DRAWN, ge=16, description="side of the drawn pictures")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")
    width: int = Field(128, ge=8, description="width of the transformer")
    heads: int = Field(4, ge=1, description="its attention heads")
    layers: int = Field(4, ge=1, description="its blocks")
    words: int = Field(64, ge=4, description="tokens of a caption that are read at most")
    unsaid: float = Field(0.1, ge=0, le=1, description="share of rows without a caption")


@dataclass(frozen=True)
class PriorBatch:
    """Unit embeddings of pictures [n, D], noise [n, D], time steps [n], and the captions' tokens:
    ``states`` [n, L, W], ``mask`` [n, L] and unit embeddings ``pooled`` [n, D].
    """

    image: Tensor
    noise: Tensor
    times: Tensor
    states: Tensor
    mask: Tensor
    pooled: Tensor


class PriorObjective(ToldObjective[PriorBatch]):
    """Captions to embeddings of pictures."""

    name = "prior"
    Settings = PriorSettings

    @cached_property
    def scorer(self) -> ClipScorer:
        """The CLIP; many pictures go through its own quick tower where there is one."""
        quick = self.place.precision == "bf16" and self.place.torch.type == "cpu"
        return load_clip(self.settings.scorer, self.place, bulk="bf16" if quick else "same")

    @cached_property
    def store(self) -> FeatureStore:
        """The training pictures' embeddings; the first touch starts drawing."""
        pool = Pictures.of(self.around, self.settings.size, self.settings.pictures).pool
        return FeatureStore(pool, self.scorer, resident=self.around.resident)

    def kept(self) -> Tensor:
        """The prior's schedule's."""
        kept: Tensor = prior_scheduler().alphas_cumprod
        return kept

    def build(self) -> nn.Module:
        """The prior, fresh, its statistics those of the first shard of embeddings."""
        s = self.settings
        encoder, _ = self.reader
        net = PortraitPrior(
            width=s.width, heads=s.heads, layers=s.layers, words=s.words,
            text_width=encoder.config.hidden_size, embed_width=self.scorer.width,
        )  # fmt: skip
        net.suit(self.around.device)
        net.settle(self.store.shard(0)[0].float())
        bare: nn.Module = net
        return bare

    def batch(self, share: Share) -> PriorBatch:
        """Embeddings of the pool with fresh noise and captions."""
        pool = self.store.pool
        rows = pool.rows(share.seed, share.position, share.size, repeats=self.settings.repeats)
        rows, labels = without_kept_words(rows, pool.labels(rows))
        image = self.store.take(rows[share.rows])
        stream = share.generator("noise")
        noise = torch.randn(share.size, self.scorer.width, generator=stream)[share.rows]
        silent = torch.rand(share.size, generator=stream) < self.settings.unsaid
        times = self.times(share, stream)
        words = self.words(labels, silent.tolist(), share)
        return PriorBatch(image, noise, times, words.states, words.mask, words.pooled)

    def loss(self, model: nn.Module, batch: PriorBatch, share: Share) -> tuple[Tensor, Parts]:
        """The mean square error of the clean embedding, each place of deviation 1."""
        bare: Any = self.inside(model)
        with torch.no_grad():
            clean = bare.inward(batch.image)
        signal, noise = (each.to(batch.times.device)[batch.times, None] for each in self.levels)
        found = model(
            signal * clean + noise * batch.noise, batch.times, batch.states, batch.mask,
            batch.pooled,
        ).float()  # fmt: skip
        error = (found - clean).square().mean(1)
        late = (noise[:, 0] > 0.9).float()
        told = {"noisy": (error * late).sum() / late.sum().clamp(min=1)}
        return error.mean(), {name: part.detach() for name, part in told.items()}

    # ----------------------------------------------------------------------- looking

    @cached_property
    def looked_at(self) -> tuple[Looks, Tensor, Words]:
        """The monitor's portraits with captions; their embeddings; the captions as read."""
        looks = world_looks(self.scorer, self.settings.size, MONITOR_COUNT, MONITOR_SEED, "val")
        with torch.no_grad():
            parts = torch.split(looks.images.to(self.around.device), 32)
            features = torch.cat([self.scorer.embed_images(part) for part in parts])
        return looks, features, self.read(looks.words)

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Cosines with the true pictures' embeddings and how often the true one is nearest."""
        bare: Any = self.inside(model)
        _, features, words = self.looked_at
        found = {}
        for name, tries in (("", 1), (f"_best{TRIES}", TRIES)):
            made = self.imagined(bare, words, tries)
            found[f"monitor_cosine{name}"] = _cosine(made, features)
            found[f"monitor_nearest{name}"] = _nearest(made, features)
            found[f"monitor_text{name}"] = _cosine(made, words.pooled)
        return found

    def imagined(self, net: PortraitPrior, words: Words, tries: int) -> Tensor:
        """Embeddings [n, D] of pictures that the prior imagines of words."""
        seeds = Seeds.of(0, len(words.pooled))
        bound = BoundPrior(net, words, prior_scheduler())
        steps = imagine(bound, words.pooled, seeds, STEPS, tries=tries)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                made: Tensor = end.value
                return made

    # ----------------------------------------------------------------------- the product

    def product(self, model: nn.Module) -> Product:
        """The prior, its layout and the hash of its CLIP."""
        bare: Any = self.inside(model)
        _, features, words = self.looked_at
        floors = {
            "cosine": _cosine(words.pooled, features), "nearest": _nearest(words.pooled, features),
            "text": _cosine(features, words.pooled),
        }  # fmt: skip
        metrics = {}
        for name, value in self.monitor(bare).items():
            kind = name.removeprefix("monitor_").partition("_")[0]
            metrics[name] = Metric(value, floors[kind], 1.0)
        notes = (
            f"{STEPS} steps of DDIM without guidance, and the best of {TRIES} by the dot product "
            "with the caption's embedding. cosine and nearest: with the embedding of the picture "
            "that the caption was made of; floor: the caption's embedding as it is. text: with the "
            "caption's embedding; floor: the true picture's."
        )
        return Product(
            role="prior", kind="prior", metrics=metrics, notes=notes,
            settings={**{name: bare.config[name] for name in _LAYOUT},
                      CLIP: self.scorer.fingerprint},
        )  # fmt: skip

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped prior back."""
        self.inside(model).load_state_dict(dict(tensors))

    def close(self) -> None:
        """End the drawing workers."""
        if "store" in self.__dict__:
            self.store.pool.close()


def _cosine(made: Tensor, true: Tensor) -> float:
    """The mean cosine of unit rows."""
    return float((made * true).sum(1).mean())


def _nearest(made: Tensor, true: Tensor) -> float:
    """The share of rows whose own true embedding is the nearest of all."""
    right = (made @ true.T).argmax(1) == torch.arange(len(true), device=true.device)
    return float(right.float().mean())
