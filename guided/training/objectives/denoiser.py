"""Trains a latent diffusion model: noise to latents, given a caption or a CLIP embedding.

The model predicts v = a * noise - s * x0 under a cosine schedule.  Under v every time step asks for
something of unit size, also the first, where there is only noise; and unlike a flow it is
understood by every scheduler that ``guided.guidance.denoise`` drives, so that recurrence and the
inversions of DDIM and DDPM work with the one shipped model.  Time steps are drawn in equal shares
of the schedule.  In terms of x0 an error of v weighs SNR + 1; that is capped, as min-SNR does, so
that nearly clean steps do not take over, while the noisy ones, where text decides, keep theirs.

Captions are read by the frozen CLIP's text tower, an image's embedding is its image tower's; each
is left out of some rows, so that the model can be asked with either, both or none; the counterpart
of classifier-free guidance is the empty text.
Source: Salimans & Ho 2022 (v); Hang et al. 2023 (min-SNR); Ho & Salimans 2022; Nichol & Dhariwal
2021 (the cosine schedule).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.seeds import Seeds
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion.portrait_folder import (
    TRANSFORMER,
    Parts,
    assemble,
    folder_files,
    scheduler,
)
from guided.generators.diffusion.text import TextFeatures
from guided.generators.diffusion.vae import (
    WEIGHTS,
    Autoencoder,
    find_autoencoder,
    load_autoencoder,
)
from guided.guidance.denoise import Denoising
from guided.models.references import LOCAL
from guided.nets.denoiser import PortraitDenoiser
from guided.training.conditional_denoising import ConditionalDenoisingObjective
from guided.training.feature_cache import FeatureCache, cache_folder
from guided.training.objective import BatchContext, Metric, ObjectiveSettings, Product
from guided.training.objective import Parts as Losses
from guided.training.pairs import ValidationSet

#: Validation images, and how many images the monitor generates of each kind.
MONITOR_COUNT, MADE = 256, 32
#: How the monitor's images are made.
STEPS, CFG = 12, 4.0
_MIDDLES = 16


class DenoiserSettings(ObjectiveSettings):
    """The ``[settings]`` of a denoiser's recipe."""

    vae: str = Field("vae", description="the autoencoder, by name")
    scorer: str = Field("clip", description="the CLIP whose towers read captions and images")
    frozen_precision: Precision = Field("bf16", description="precision of the frozen models")
    width: int = Field(192, ge=8, description="width of the transformer")
    heads: int = Field(6, ge=1, description="its attention heads")
    layers: int = Field(5, ge=1, description="its blocks")
    patch: int = Field(2, ge=1, description="latents of a side that make a token")
    image_tokens: int = Field(4, ge=1, description="tokens of a picture's embedding")
    text_dropout: float = Field(0.1, ge=0, le=1, description="share of rows without a caption")
    image_dropout: float = Field(0.7, ge=0, le=1, description="share of rows without an image")
    image_only: float = Field(0.5, ge=0, le=1, description="of rows with an image: no caption")
    min_snr_gamma: float = Field(5.0, ge=1, description="largest weight of an error of x0")


@dataclass(frozen=True)
class NoisyBatch:
    """Clean latents and noise [n, C, h, w], time steps [n], and the conditioning.

    ``states`` [n, L, W], ``mask`` [n, L] and ``pooled`` [n, D] are captions, ``image`` [n, D]
    embeddings of images, of which rows with ``image_mask`` [n] = 1 are given.  ``truth`` [n, K] are
    codes of what is known of the images, -1 where nothing is.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    states: Tensor
    mask: Tensor
    pooled: Tensor
    image: Tensor
    image_mask: Tensor
    truth: Tensor | None = None


class DenoiserObjective(ConditionalDenoisingObjective[NoisyBatch]):
    """Noise to latents, conditioned on a caption, an image's embedding, both or nothing."""

    name = "denoiser"
    Settings: ClassVar[type[ObjectiveSettings]] = DenoiserSettings

    @cached_property
    def located(self) -> tuple[Path, str]:
        """The autoencoder's folder and hash."""
        return find_autoencoder(self.settings.vae)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder of the latents."""
        return load_autoencoder(self.located[0], self.device)

    @property
    def size(self) -> int:
        """The side of the autoencoder's images."""
        return int(self.autoencoder.vae.config.sample_size)

    @cached_property
    def cache(self) -> FeatureCache:
        """Latents and CLIP embeddings of the training images."""
        scorer, autoencoder = self.scorer, self.autoencoder
        weight = next(autoencoder.vae.parameters())
        marks = (self.located[1], str(weight.dtype), scorer.fingerprint, scorer.device.precision)

        def encode(rows: np.ndarray) -> Sequence[Tensor]:
            images = self.dataset.pixels(rows).to(weight.device).float().div(255)
            return autoencoder.encode(images), scorer.embed_images(images)

        folder, parts = cache_folder(self.dataset, "latents", *marks), ("latents", "features")
        return FeatureCache(folder, self.dataset, parts, encode, weight.device, self.ctx.resident)

    def alphas_cumprod(self) -> Tensor:
        """A cosine schedule's."""
        signal: Tensor = scheduler().alphas_cumprod
        return signal

    def build(self) -> nn.Module:
        """The denoiser, fresh; it begins by predicting nothing."""
        s, own = self.settings, self.autoencoder
        side = self.size // own.factor
        encoder, _ = self.text_encoder
        net = PortraitDenoiser(
            in_channels=own.channels, sample_size=side, patch_size=s.patch, width=s.width,
            heads=s.heads, layers=s.layers, text_width=encoder.config.hidden_size,
            embed_width=self.scorer.width, image_tokens=s.image_tokens,
        )  # fmt: skip
        net.set_attention_backend(self.ctx.device)
        bare: nn.Module = net
        return bare

    def batch(self, share: BatchContext) -> NoisyBatch:
        """Latents of the training images with fresh noise, and their conditioning."""
        return self.noised(self.dataset.rows(share), share)

    def noised(self, rows: np.ndarray, share: BatchContext) -> NoisyBatch:
        """This process's part of a batch of those rows, its chances the share's."""
        rows = self.dataset.permitted(rows)
        mine = rows[share.rows]
        latents, features = self.cache.take(mine)
        stream = share.generator("noise")
        noise = torch.randn(share.size, *latents.shape[1:], generator=stream)[share.rows]
        uniform = torch.rand(share.size, 3, generator=stream)
        image_mask = uniform[:, 0] >= self.settings.image_dropout
        silent = uniform[:, 1] < self.settings.text_dropout
        silent |= image_mask & (uniform[:, 2] < self.settings.image_only)
        text = self.conditioning(rows, silent.tolist(), share)
        return NoisyBatch(
            latents, noise, self.times(share, share.generator("times")), text.states, text.mask,
            text.pooled, features, image_mask[share.rows].float(), self.dataset.attributes(mine),
        )  # fmt: skip

    def loss(
        self, model: nn.Module, batch: NoisyBatch, share: BatchContext
    ) -> tuple[Tensor, Losses]:
        """The weighted mean square of the error of v."""
        total, parts = self.v_loss(self.predict(model, batch), batch)
        return total, {name: part.detach() for name, part in parts.items()}

    def v_loss(self, output: Tensor, batch: NoisyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss [] of a model's output, and named parts."""
        square, snr = self._square(output, batch)
        error = square.flatten(1).mean(1)
        weight = (snr + 1).clamp(max=self.settings.min_snr_gamma) / (snr + 1)
        total = (weight * (error + self.extra_error(square))).mean()
        return total, {"v": error.mean(), "v_noisy": _mean(error, snr < 0.1)}

    def extra_error(self, square: Tensor) -> Tensor:
        """What square errors [n, C, h, w] of each row count for besides, [n]; here nothing."""
        return square.new_zeros(len(square))

    def _signal(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """The parts [n, 1, 1, 1] of signal and of noise of each row."""
        a, s = (each.to(batch.times.device)[batch.times] for each in self.levels)
        return a.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)

    def predict(self, model: nn.Module, batch: NoisyBatch) -> Any:
        """A model's output for the noisy latents."""
        a, s = self._signal(batch)
        return model(
            a * batch.latents + s * batch.noise, batch.times, batch.states, batch.mask,
            batch.pooled, batch.image, batch.image_mask,
        )  # fmt: skip

    def _square(self, output: Tensor, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """Square errors of v [n, C, h, w], and each row's signal-to-noise ratio [n]."""
        a, s = self._signal(batch)
        wanted = a * batch.noise - s * batch.latents
        return (output.float() - wanted).square(), (a / s).square().flatten()

    # ----------------------------------------------------------------------- looking

    @cached_property
    def val_set(self) -> tuple[ValidationSet, Tensor, Tensor]:
        """Validation images with captions; their latents and features."""
        val = self.dataset.validation(MONITOR_COUNT)
        with torch.no_grad():
            parts = torch.split(val.images.to(self.ctx.device), 32)
            latents = torch.cat([self.autoencoder.encode(part).float() for part in parts])
            features = torch.cat([self.scorer.embed_images(part) for part in parts])
        return val, latents, features

    @cached_property
    def val_texts(self) -> tuple[Tensor, Tensor]:
        """Unit embeddings of the first true captions and of the wrong ones, at most MADE each."""
        val = self.val_set[0]
        true, wrong = val.captions[:MADE], val.wrong[:MADE]
        return self.scorer.embed_texts(true).cpu(), self.scorer.embed_texts(wrong).cpu()

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The error of v given a caption, an image or nothing, and what the CLIP prefers."""
        bare: Any = self.inside(model)
        val, latents, features = self.val_set
        text, silence = self.encode_text(val.captions), self.encode_text([""] * len(latents))
        ways = {"words": (text, 0.0), "picture": (silence, 1.0), "nothing": (silence, 0.0)}
        errors = {
            f"monitor_v_{name}": self._validation_error(bare, latents, features, *given)
            for name, given in ways.items()
        }
        return errors | self._preferred(bare)

    def _validation_error(
        self,
        model: nn.Module,
        latents: Tensor,
        features: Tensor,
        text: TextFeatures,
        image_mask: float,
    ) -> float:
        """The mean error of v at evenly spread time steps."""
        count, steps = len(latents), len(self.levels[0])
        stream = torch.Generator().manual_seed(0)
        noise = torch.randn(latents.shape, generator=stream).to(latents.device)
        times = (torch.arange(count) % _MIDDLES * 2 + 1) * steps // (2 * _MIDDLES)
        batch = NoisyBatch(
            latents, noise, times.to(latents.device), text.states.float(), text.mask.float(),
            text.pooled, features, latents.new_full((count,), image_mask),
        )  # fmt: skip
        return float(self._square(self.predict(model, batch), batch)[0].mean())

    def _preferred(self, model: PortraitDenoiser) -> dict[str, float]:
        """How often the CLIP prefers an image's caption to a wrong one, and by how much.

        Half the images are made of captions, half of real images' embeddings.
        """
        val, _, features = self.val_set
        true_text, wrong_text = self.val_texts
        generator = self.generator(model)
        figures = {}
        for name, image in (("words", None), ("picture", features[:MADE])):
            texts = val.captions[:MADE] if image is None else [""] * len(true_text)
            embedded = self.scorer.embed_images(made(generator, texts, image)).cpu()
            true, false = (embedded * true_text).sum(1), (embedded * wrong_text).sum(1)
            figures[f"monitor_prefers_{name}"] = float((true > false).float().mean())
            figures[f"monitor_cosine_{name}"] = float(true.mean())
        return figures

    def generator(self, model: PortraitDenoiser) -> Diffusion:
        """The whole generator around a denoiser, in the precision of the frozen models."""
        return assemble(
            copy.deepcopy(model), scheduler(), self.autoencoder, self.scorer, self.device
        )

    # ----------------------------------------------------------------------- the product

    def product(self, model: nn.Module) -> Product:
        """The folder of the denoiser and its scheduler, with the names of what it shares."""
        bare: Any = self.inside(model)
        features, (true_text, wrong_text) = self.val_set[2].cpu()[:MADE], self.val_texts
        true, false = (features * true_text).sum(1), (features * wrong_text).sum(1)
        best = {"prefers": float((true > false).float().mean()), "cosine": float(true.mean())}
        others = float((features * true_text.roll(1, 0)).sum(1).mean())
        figures = self.monitor(bare)
        floors = {"v": figures.pop("monitor_v_nothing"), "prefers": 0.5, "cosine": others}
        metrics = {}
        for name, value in figures.items():
            kind = name.removeprefix("monitor_").partition("_")[0]
            metrics[name] = Metric(value, floors[kind], best.get(kind, 0.0))
        parts = Parts(
            lasting(self.settings.vae),
            self.located[1],
            lasting(self.settings.scorer),
            self.scorer.fingerprint,
        )
        notes = (
            f"{self.origin()} Predicts v; {STEPS} steps of DPM++ 2M at cfg {CFG:g} for the "
            f"monitor, which asks the CLIP about {len(features)} images of captions and as many of "
            "images' embeddings; ceiling: the real images; floor of the error of v: told nothing."
        )
        return Product(
            role="denoiser", kind="pixart", metrics=metrics, notes=notes,
            licence=self.dataset.licence, weights=f"{TRANSFORMER}/{WEIGHTS}",
            files=folder_files(bare, parts), tensors=bare.state_dict(),
        )  # fmt: skip

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped denoiser back."""
        self.inside(model).load_state_dict(dict(tensors))


@torch.no_grad()
def made(generator: Diffusion, texts: Sequence[str], image: Tensor | None = None) -> Tensor:
    """Pictures [n, 3, H, W] in [0, 1], float32, of texts or of embeddings of pictures."""
    seeds = Seeds.of(0, len(texts))
    bound = generator.bound(texts, cfg=CFG, image=image)
    noise = generator.start(seeds)["noise"]
    steps = Denoising(bound, generator.scheduler(), noise, seeds, STEPS, CFG).steps()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return generator.render({"x0": end.value}).float()


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean of some values; 0 where there are none."""
    return (values * where).sum() / where.sum().clamp(min=1)


def lasting(name: str) -> str:
    """A model's name as it may be kept: that of a folder does not depend on where one stands."""
    path = Path(name.removeprefix(LOCAL)).expanduser()
    folder = path.is_dir() and (name.startswith(LOCAL) or "/" in name)
    return f"{LOCAL if name.startswith(LOCAL) else ''}{path.resolve()}" if folder else name
