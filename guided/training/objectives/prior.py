"""Trains a diffusion prior: from a caption to the CLIP embedding of an image it is true of.

Images are embedded once by the frozen CLIP; each visit has one of their captions.  The noisy
embedding is denoised as a latent would be, and the clean one is predicted, with its squared error;
a tenth of the captions are left out, so that classifier-free guidance is possible.
Source: Ramesh et al. 2022 (unCLIP), section 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.generators.diffusion.text import TextFeatures
from guided.generators.unclip import CLIP, BoundPrior, prior_scheduler
from guided.guidance.prior_sampling import sample_prior
from guided.models.loading import load_scorer
from guided.nets.prior import PortraitPrior
from guided.scorers.clip import ClipScorer
from guided.training.conditional_denoising import ConditionalDenoisingObjective
from guided.training.feature_cache import FeatureCache, clip_features
from guided.training.objective import BatchContext, Metric, ObjectiveSettings, Parts, Product

#: Validation captions that the monitor looks at.
MONITOR_COUNT = 256
#: How the monitor samples.
STEPS, TRIES = 8, 4
_LAYOUT = ("width", "heads", "layers", "words", "text_width", "embed_width")


class PriorSettings(ObjectiveSettings):
    """The ``[settings]`` of a prior's recipe."""

    scorer: str = Field("clip", description="the CLIP whose embeddings it speaks, by name")
    frozen_precision: Precision = Field("bf16", description="precision of the frozen CLIP")
    size: int = Field(0, ge=0, description="side of the images; 0: as the CLIP sees them")
    width: int = Field(128, ge=8, description="width of the transformer")
    heads: int = Field(4, ge=1, description="its attention heads")
    layers: int = Field(4, ge=1, description="its blocks")
    words: int = Field(64, ge=4, description="tokens of a caption that are read at most")
    text_dropout: float = Field(0.1, ge=0, le=1, description="share of rows without a caption")


@dataclass(frozen=True)
class PriorBatch:
    """Unit embeddings of images [n, D], noise [n, D], time steps [n], and the captions' tokens:
    ``states`` [n, L, W], ``mask`` [n, L] and unit embeddings ``pooled`` [n, D].
    """

    image: Tensor
    noise: Tensor
    times: Tensor
    states: Tensor
    mask: Tensor
    pooled: Tensor


class PriorObjective(ConditionalDenoisingObjective[PriorBatch]):
    """Captions to embeddings of images."""

    name = "prior"
    Settings: ClassVar[type[ObjectiveSettings]] = PriorSettings

    @cached_property
    def scorer(self) -> ClipScorer:
        """The CLIP; many images go through its own quick tower where there is one."""
        quick = self.device.precision == "bf16" and self.device.torch.type == "cpu"
        return load_scorer(self.settings.scorer, self.device, bulk="bf16" if quick else "same")

    @property
    def size(self) -> int:
        """The side of the images that are embedded."""
        return int(self.settings.size or max(self.scorer.preprocess.size))

    @cached_property
    def cache(self) -> FeatureCache:
        """The training images' embeddings."""
        return clip_features(self.dataset, self.scorer, resident=self.ctx.resident)

    def alphas_cumprod(self) -> Tensor:
        """The prior's schedule's."""
        signal: Tensor = prior_scheduler().alphas_cumprod
        return signal

    def build(self) -> nn.Module:
        """The prior, fresh, its statistics those of the first shard of embeddings."""
        s = self.settings
        encoder, _ = self.text_encoder
        net = PortraitPrior(
            width=s.width, heads=s.heads, layers=s.layers, words=s.words,
            text_width=encoder.config.hidden_size, embed_width=self.scorer.width,
        )  # fmt: skip
        net.set_attention_backend(self.ctx.device)
        net.set_stats(self.cache.shard(0)[0].float())
        bare: nn.Module = net
        return bare

    def batch(self, share: BatchContext) -> PriorBatch:
        """Embeddings of the training images with fresh noise, and captions."""
        rows = self.dataset.permitted(self.dataset.rows(share))
        image = self.cache.take(rows[share.rows])[0]
        stream = share.generator("noise")
        noise = torch.randn(share.size, self.scorer.width, generator=stream)[share.rows]
        silent = torch.rand(share.size, generator=stream) < self.settings.text_dropout
        times = self.times(share, stream)
        text = self.conditioning(rows, silent.tolist(), share)
        return PriorBatch(image, noise, times, text.states, text.mask, text.pooled)

    def loss(
        self, model: nn.Module, batch: PriorBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """The mean square error of the clean embedding, each place of deviation 1."""
        bare: Any = self.inside(model)
        with torch.no_grad():
            clean = bare.normalize(batch.image)
        signal, noise = (each.to(batch.times.device)[batch.times, None] for each in self.levels)
        output = model(
            signal * clean + noise * batch.noise, batch.times, batch.states, batch.mask,
            batch.pooled,
        ).float()  # fmt: skip
        error = (output - clean).square().mean(1)
        late = (noise[:, 0] > 0.9).float()
        parts = {"noisy": (error * late).sum() / late.sum().clamp(min=1)}
        return error.mean(), {name: part.detach() for name, part in parts.items()}

    # ----------------------------------------------------------------------- looking

    @cached_property
    def val_set(self) -> tuple[Tensor, TextFeatures]:
        """Embeddings [n, D] of validation images, and their captions as read."""
        val = self.dataset.validation(MONITOR_COUNT)
        with torch.no_grad():
            parts = torch.split(val.images.to(self.ctx.device), 32)
            features = torch.cat([self.scorer.embed_images(part) for part in parts])
        return features, self.encode_text(val.captions)

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Cosines with the true images' embeddings and how often the true one is nearest."""
        bare: Any = self.inside(model)
        features, words = self.val_set
        figures = {}
        for name, tries in (("", 1), (f"_best{TRIES}", TRIES)):
            made = self.sampled(bare, words, tries)
            figures[f"monitor_cosine{name}"] = _cosine(made, features)
            figures[f"monitor_nearest{name}"] = _nearest(made, features)
            figures[f"monitor_text{name}"] = _cosine(made, words.pooled)
        return figures

    def sampled(self, net: PortraitPrior, words: TextFeatures, tries: int) -> Tensor:
        """Embeddings [n, D] that the prior samples for captions."""
        seeds = Seeds.of(0, len(words.pooled))
        bound = BoundPrior(net, words, prior_scheduler())
        made: Tensor = drain(sample_prior(bound, words.pooled, seeds, STEPS, tries=tries))
        return made

    # ----------------------------------------------------------------------- the product

    def product(self, model: nn.Module) -> Product:
        """The prior, its layout and the hash of its CLIP."""
        bare: Any = self.inside(model)
        features, words = self.val_set
        floors = {
            "cosine": _cosine(words.pooled, features), "nearest": _nearest(words.pooled, features),
            "text": _cosine(features, words.pooled),
        }  # fmt: skip
        metrics = {}
        for name, value in self.monitor(bare).items():
            kind = name.removeprefix("monitor_").partition("_")[0]
            metrics[name] = Metric(value, floors[kind], 1.0)
        notes = (
            f"{self.origin()} {STEPS} steps of DDIM without guidance, and the best of {TRIES} by "
            "the dot product with the caption's embedding. cosine and nearest: with the embedding "
            "of the caption's own image; floor: the caption's embedding as it is. text: with the "
            "caption's embedding; floor: the true image's."
        )
        return Product(
            role="prior", kind="prior", metrics=metrics, notes=notes,
            licence=self.dataset.licence, settings={**{name: bare.config[name] for name in _LAYOUT},
                      CLIP: self.scorer.fingerprint},
        )  # fmt: skip

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped prior back."""
        self.inside(model).load_state_dict(dict(tensors))


def _cosine(made: Tensor, true: Tensor) -> float:
    """The mean cosine of unit rows."""
    return float((made * true).sum(1).mean())


def _nearest(made: Tensor, true: Tensor) -> float:
    """The share of rows whose own true embedding is the nearest of all."""
    right = (made @ true.T).argmax(1) == torch.arange(len(true), device=true.device)
    return float(right.float().mean())
