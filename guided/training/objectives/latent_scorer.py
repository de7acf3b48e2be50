"""Trains a latent scorer: a student that embeds latents as the guiding CLIP embeds images.

It sees what a guided loop sees: the clean latents that the frozen denoiser predicts from noisy
ones, with the level of noise.  Its teacher's answer is the embedding of the true image, so under
much noise it learns what can be told of it by then.  Besides the cosine, its similarities to the
batch's captions are to be the teacher's, since guidance follows those.
Guidance follows gradients, and a student that agrees with its teacher need not rise where the
teacher does.  So its similarity to a caption is also to have the teacher's gradient at the latents,
through the whole decoder.
Source: Nichol et al. 2021 (GLIDE), section 2.4, the noised CLIP; here on predictions.  Czarnecki et
al. 2017 (Sobolev training) for the gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.errors import CorruptWeights
from guided.generators.diffusion.portrait_folder import TRANSFORMER, parts_of
from guided.generators.diffusion.vae import WEIGHTS, prepare_vae
from guided.nets.denoiser import PortraitDenoiser
from guided.nets.latent_scorer import LatentNet
from guided.training.feature_cache import FeatureCache, cache_folder
from guided.training.objective import BatchContext, Metric, ObjectiveSettings, Parts, Product
from guided.training.objectives.denoiser import DenoiserObjective, DenoiserSettings, NoisyBatch
from guided.training.pair_objective import PairObjective
from guided.training.pairs import PairDataset
from guided.training.prefetch import to_device
from guided.zoo.checksums import digest
from guided.zoo.gate_calls import load_part
from guided.zoo.resolve import find_folder

_LEVELS = (0.05, 0.3, 0.6, 0.9)
_WATCHED, _TRACED = 256, 64
#: The noise level at which the monitor compares gradients.
_TRACED_LEVEL = 0.6


class LatentScorerSettings(ObjectiveSettings):
    """The ``[settings]`` of a latent scorer's recipe."""

    denoiser: str = Field("denoiser", description="whose predictions are seen, by name or folder")
    width: int = Field(128, ge=8, description="width of the transformer")
    layers: int = Field(3, ge=1, description="its blocks")
    patch: int = Field(2, ge=1, description="latents of a side that make a token")
    clean: float = Field(0.1, ge=0, le=1, description="share of rows that see the true latents")
    relation: float = Field(4.0, ge=0, description="weight of the similarities to captions")
    slope: float = Field(0.0, ge=0, description="weight of the direction of their gradients")
    frozen_precision: Precision = Field("bf16", description="precision of the frozen models")


@dataclass(frozen=True)
class TeacherTargets:
    """What the student sees, and what it should say.

    ``latents`` [n, C, h, w] are clean ones as predicted at noise ``levels`` [n]; ``image`` [n, D]
    the unit embeddings of the true images, ``texts`` [n, D] those of their captions.  ``slope``
    [n, C, h, w] is the gradient at the latents of the decoded image's similarity to ``asked``
    [n, D], where it was worked out.
    """

    latents: Tensor
    levels: Tensor
    image: Tensor
    texts: Tensor
    asked: Tensor
    slope: Tensor | None = None


class LatentStudent(nn.Module):
    """The student's unit features of clean latents at noise levels."""

    def __init__(self, net: LatentNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, latents: Tensor, noise: Tensor) -> Tensor:
        """[n, D], float32."""
        return F.normalize(self.net(latents, noise).float(), dim=1)


class LatentScorerObjective(PairObjective[TeacherTargets]):
    """A CLIP's features of images, from predictions of their latents."""

    name = "latent_scorer"
    Settings: ClassVar[type[ObjectiveSettings]] = LatentScorerSettings

    @property
    def size(self) -> int:
        """The side of the autoencoder's images."""
        return self.noisy.size

    @cached_property
    def dataset(self) -> PairDataset:
        """What the denoiser learns from."""
        return self.noisy.dataset

    @cached_property
    def folder(self) -> Path:
        """The denoiser's folder."""
        return find_folder(self.settings.denoiser, "denoiser", f"{TRANSFORMER}/config.json")[0]

    @cached_property
    def noisy(self) -> DenoiserObjective:
        """What the denoiser learnt from: the same latents, noise and captions."""
        parts = parts_of(self.folder)
        if parts is None:
            raise CorruptWeights(
                f"{self.folder} is not a denoiser that guided trained: it has no parts.json.",
                hint="Name one that guided train or scripts/build denoiser made.",
            )
        shared = {
            "vae": parts.vae,
            "scorer": parts.scorer,
            "frozen_precision": self.settings.frozen_precision,
        }
        return self.denoising({**shared, "image_dropout": 1.0, "text_dropout": 0.2})

    def denoising(self, table: Mapping[str, Any]) -> DenoiserObjective:
        """The denoiser's training with these settings."""
        return DenoiserObjective(DenoiserSettings(**table), self.ctx)

    @cached_property
    def denoiser(self) -> PortraitDenoiser:
        """The frozen denoiser."""
        net: PortraitDenoiser = load_part(
            PortraitDenoiser, self.folder / TRANSFORMER, use_safetensors=True
        )
        net.set_attention_backend(self.ctx.device)
        frozen: PortraitDenoiser = prepare_vae(net, self.noisy.device)
        return frozen

    def build(self) -> nn.Module:
        """The student, fresh."""
        s, config = self.settings, self.denoiser.config
        return LatentStudent(
            LatentNet(config.in_channels, config.sample_size, self.noisy.scorer.width, s.width,
                      s.layers, s.patch)
        )  # fmt: skip

    @cached_property
    def targets(self) -> FeatureCache:
        """The teacher's answers, with gradients, about every training image.

        A gradient of a caption's similarity through the decoder and the CLIP costs several times
        what the student's whole step does, so it pays to look at each more than once.
        """
        marks = (
            digest(self.folder / TRANSFORMER / WEIGHTS), self.noisy.located[1],
            self.noisy.scorer.fingerprint, f"{self.settings.clean:g}", self.noisy.device.precision,
        )  # fmt: skip
        names = [field.name for field in fields(TeacherTargets)]

        def encode(rows: np.ndarray) -> Sequence[Tensor]:
            targets = self.teacher_targets(rows, int(rows[0]))
            parts = {name: getattr(targets, name) for name in names}
            parts["slope"] = unit_gradients(parts["slope"])
            return [parts[name] for name in names]

        return FeatureCache(
            cache_folder(self.dataset, "targets", *marks), self.dataset, names, encode,
            self.ctx.device, self.ctx.resident,
        )  # fmt: skip

    def batch(self, share: BatchContext) -> TeacherTargets:
        """Predictions with fresh noise, or cached ones, whose gradients are known."""
        if not self.settings.slope:
            return self._targets_of(self.noisy.batch(share), share)
        return TeacherTargets(*self.targets.take(self.dataset.rows(share)[share.rows]))

    def teacher_targets(self, rows: np.ndarray, seed: int) -> TeacherTargets:
        """What the student should say of some rows, with gradients; ``seed`` draws the noise."""
        share = BatchContext(0, seed, len(rows))
        targets = self._targets_of(self.noisy.noised(rows, share), share)
        return replace(targets, slope=self.teacher_gradient(targets.latents, targets.asked))

    def _targets_of(self, batch: NoisyBatch, share: BatchContext) -> TeacherTargets:
        """What the student sees of a batch: predictions, some true latents among them."""
        batch = to_device(batch, self.ctx.device)  # the denoiser's
        uniform = torch.rand(share.size, generator=share.generator("clean"))[share.rows]
        true = (uniform < self.settings.clean).to(batch.latents.device)
        clean, noise = self._predicted(batch)
        texts = batch.pooled.float()
        return TeacherTargets(
            torch.where(true.view(-1, 1, 1, 1), batch.latents, clean),
            torch.where(true, torch.zeros_like(noise), noise),
            batch.image, texts, self._asked(texts, share),
        )  # fmt: skip

    def loss(
        self, model: nn.Module, batch: TeacherTargets, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """How far features are from the teacher's, similarities to the batch's captions from its,
        and the directions of their gradients.
        """
        seen = batch.latents.detach().requires_grad_(batch.slope is not None)
        found = model(seen, batch.levels)
        with torch.autocast(found.device.type, enabled=False):
            apart = 1 - (found * batch.image).sum(1)
            texts = batch.texts.T
            relation = (found @ texts - batch.image @ texts).square().mean()
            total = apart.mean() + self.settings.relation * relation
            parts = {"apart": apart.detach().mean(), "relation": relation.detach()}
            if batch.slope is not None:
                own = gradient(found, batch.asked, seen, keep=True)
                slope = 1 - along(own, batch.slope).mean()
                total, parts["slope"] = total + self.settings.slope * slope, slope.detach()
        return total, parts

    @staticmethod
    def _asked(texts: Tensor, share: BatchContext) -> Tensor:
        """For half of the rows [n, D] their own caption, for the others that of some row."""
        stream = share.generator("asked")
        count = len(texts)
        other = torch.randint(count, (count,), generator=stream)
        own = torch.rand(count, generator=stream) < 0.5
        return texts[torch.where(own, torch.arange(count), other).to(texts.device)]

    def teacher_gradient(self, latents: Tensor, texts: Tensor) -> Tensor:
        """The gradient [n, C, h, w] of decoded latents' similarity to texts' embeddings [n, D]."""
        found = []
        for some, asked in zip(torch.split(latents, 16), torch.split(texts, 16), strict=True):
            with torch.enable_grad():
                seen = some.detach().float().requires_grad_(True)
                pictures = self.noisy.autoencoder.decode(seen)
                found.append(gradient(self.noisy.scorer.embed_images(pictures), asked, seen))
        return torch.cat(found)

    @torch.no_grad()
    def _predicted(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """The clean latents [n, C, h, w] that the denoiser predicts, and the noise levels [n]."""
        device, kind = batch.latents.device, self.noisy.device.dtype
        signal, noise = (each.to(device)[batch.times] for each in self.noisy.levels)
        a, s = signal.view(-1, 1, 1, 1), noise.view(-1, 1, 1, 1)
        given = a * batch.latents + s * batch.noise
        with torch.autocast(device.type, enabled=False):
            output = self.denoiser(
                given.to(kind), batch.times, batch.states, batch.mask, batch.pooled
            ).float()
        return a * given - s * output, noise

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The mean cosine to the teacher at four noise levels, on validation images, and
        between the gradients of both at one.
        """
        bare, found = self.inside(model), {}
        for level in _LEVELS:
            batch = self._watched(level, _WATCHED)
            seen = bare(*self._predicted(batch))
            found[f"monitor_cosine_{round(100 * level):02d}"] = float(
                (seen * batch.image).sum(1).mean()
            )
        batch = self._watched(_TRACED_LEVEL, _TRACED)
        latents, noise = self._predicted(batch)
        texts = batch.pooled.float().roll(1, 0)
        with torch.enable_grad():
            latents.requires_grad_(True)
            own = gradient(bare(latents, noise), texts, latents)
        true = self.teacher_gradient(latents, texts)
        return found | {"monitor_slope": float(along(own, true).mean())}

    def _watched(self, level: float, count: int) -> NoisyBatch:
        """The first validation images at a noise level, always with the same noise."""
        val, latents, features = self.noisy.val_set
        latents, features = latents[:count], features[:count]
        words = self.noisy.encode_text(val.captions[:count])
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        time = int((self.noisy.levels[1] - level).abs().argmin())
        times = torch.full((len(latents),), time, device=latents.device)
        return NoisyBatch(
            latents, noise.to(latents.device), times, words.states, words.mask, words.pooled,
            features, latents.new_zeros(len(latents)),
        )  # fmt: skip

    def product(self, model: nn.Module) -> Product:
        """The student, with the hashes of its teacher and of the latents' autoencoder."""
        bare: Any = copy.deepcopy(self.inside(model))
        _, _, features = self.noisy.val_set
        blind = float((features @ F.normalize(features.mean(0), dim=0)).mean())
        metrics = {
            name: Metric(value, 0.0 if name == "monitor_slope" else blind, 1.0)
            for name, value in self.monitor(model).items()
        }
        notes = (
            f"{self.origin()} Cosine to the teacher's embedding of the true image, from what the "
            "denoiser predicts at noise levels of .05, .3, .6 and .9; floor: the mean embedding. "
            f"slope: cosine between both gradients of a caption's similarity at {_TRACED_LEVEL:g}."
        )
        return Product(
            role="latent_scorer", kind="latent-vit", metrics=metrics, notes=notes,
            licence=self.dataset.licence, tensors=bare.net.state_dict(), settings={
                **bare.net.shape, "scorer_sha256": self.noisy.scorer.fingerprint,
                "vae_sha256": self.noisy.located[1],
            },
        )  # fmt: skip

    def hidden(self, name: str, parameter: nn.Parameter) -> bool:
        """The matrices inside the student's blocks."""
        return "blocks" in name and name.endswith("weight") and parameter.ndim == 2

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped student back."""
        bare: Any = self.inside(model)
        bare.net.load_state_dict(dict(tensors))

    def close(self) -> None:
        """End the drawing workers."""
        if "noisy" in self.__dict__:
            self.noisy.close()


def gradient(features: Tensor, texts: Tensor, latents: Tensor, *, keep: bool = False) -> Tensor:
    """The gradient [n, C, h, w] at latents of each row's similarity: its features [n, D] by its
    text [n, D].  ``keep``: it can be differentiated again.
    """
    (found,) = torch.autograd.grad((features * texts).sum(), latents, create_graph=keep)
    return found


def along(one: Tensor, other: Tensor) -> Tensor:
    """Cosines [n] between rows [n, ...]."""
    return F.cosine_similarity(one.float().flatten(1), other.float().flatten(1), dim=1)


def unit_gradients(gradients: Tensor) -> Tensor:
    """Gradients [n, C, h, w], of which only the direction counts, at a mean square of 1."""
    return gradients / gradients.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
