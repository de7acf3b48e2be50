"""Trains the shipped diffusion model: noise to the latents of a portrait, told words or a picture.

The model predicts v = a * noise - s * x0 under a cosine schedule.  Under v every time step asks for
something of unit size, also the first, where there is only noise; and unlike a flow it is
understood by every scheduler that ``guided.guidance.denoise`` drives, so that recurrence and the
inversions of DDIM and DDPM work with the one shipped model.  Time steps are drawn in equal shares
of the schedule.  In terms of x0 an error of v weighs SNR + 1; that is capped, as min-SNR does, so
that nearly clean steps do not take over, while the noisy ones, where words decide, keep theirs.

Words come from the frozen CLIP's text tower and a picture's embedding from its picture tower; each
is left out of some rows, so that the model can be asked with either, both or none; the counterpart
of classifier-free guidance is the empty text.
Source: Salimans & Ho 2022 (v); Hang et al. 2023 (min-SNR); Ho & Salimans 2022; Nichol & Dhariwal
2021 (the cosine schedule).  ``guided.training.read_denoiser`` says what ``facts`` adds; ``words``
counts errors more where words lie on shirts, which is too small to be learnt soon otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.seeds import Seeds
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion_own import (
    TRANSFORMER,
    Parts,
    assembled,
    folder_files,
    scheduler,
)
from guided.generators.diffusion_vae import (
    WEIGHTS,
    Autoencoder,
    find_autoencoder,
    load_autoencoder,
)
from guided.generators.diffusion_words import Words
from guided.guidance.denoise import Denoising
from guided.nets.denoiser import PortraitDenoiser
from guided.training.latent_store import LatentStore
from guided.training.objective import (
    Metric,
    ObjectiveSettings,
    Product,
    Share,
)
from guided.training.objective import Parts as Losses
from guided.training.pictures import Pictures
from guided.training.places import place_of
from guided.training.read_denoiser import ReadDenoiser
from guided.training.text_gan_world import Looks, truth_of, without_kept_words, world_looks
from guided.training.told import ToldObjective
from guided.training.truth_losses import facts_apart

#: World seeds of the monitor's own portraits, far from those of every published figure.
MONITOR_SEED, MONITOR_COUNT, MADE = 6_200_000, 256, 32
#: How the monitor's pictures are made.
STEPS, CFG = 12, 4.0
_MIDDLES = 16


class DenoiserSettings(ObjectiveSettings):
    """The ``[settings]`` of a denoiser's recipe."""

    vae: str = Field("vae", description="the autoencoder, by name")
    scorer: str = Field("clip", description="the CLIP whose towers read words and pictures")
    frozen: Precision = Field("bf16", description="precision of the frozen models")
    pictures: int = Field(131_072, ge=64, description="drawn pictures in the pool")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")
    width: int = Field(192, ge=8, description="width of the transformer")
    heads: int = Field(6, ge=1, description="its attention heads")
    layers: int = Field(5, ge=1, description="its blocks")
    patch: int = Field(2, ge=1, description="latents of a side that make a token")
    image_tokens: int = Field(4, ge=1, description="tokens of a picture's embedding")
    unsaid: float = Field(0.1, ge=0, le=1, description="share of rows without words")
    unseen: float = Field(0.7, ge=0, le=1, description="share of rows without a picture")
    apart: float = Field(0.5, ge=0, le=1, description="of rows with a picture: no words")
    cap: float = Field(5.0, ge=1, description="largest weight of an error of x0")
    facts: float = Field(0.0, ge=0, description="weight of reading attributes off middle tokens")
    words: float = Field(0.0, ge=0, description="how much more errors count where a word lies")
    read_after: int = Field(3, ge=1, description="blocks after which they are read")

    @model_validator(mode="after")
    def _there(self) -> DenoiserSettings:
        if self.facts and self.read_after > self.layers:
            raise ValueError(
                f"read_after is {self.read_after} and there are {self.layers} layers; "
                f"give 1 to {self.layers}, or set facts to 0"
            )
        return self


@dataclass(frozen=True)
class NoisyBatch:
    """Clean latents and noise [n, C, h, w], time steps [n], and what is told of them.

    ``states`` [n, L, W], ``mask`` [n, L] and ``pooled`` [n, D] are words, ``image`` [n, D]
    embeddings of pictures, of which rows with ``shown`` [n] = 1 are told.  ``truth`` [n, 13] are
    codes of what the pictures show, -1 where it cannot be seen.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    states: Tensor
    mask: Tensor
    pooled: Tensor
    image: Tensor
    shown: Tensor
    truth: Tensor | None = None


class DenoiserObjective(ToldObjective[NoisyBatch]):
    """Noise to latents, told words, a picture, both or nothing."""

    name = "denoiser"
    Settings = DenoiserSettings

    @cached_property
    def found(self) -> tuple[Path, str]:
        """The autoencoder's folder and hash."""
        return find_autoencoder(self.settings.vae)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder of the latents."""
        return load_autoencoder(self.found[0], self.place)

    @cached_property
    def store(self) -> LatentStore:
        """The latents of the training pictures; the first touch starts drawing."""
        size = int(self.autoencoder.vae.config.sample_size)
        pool = Pictures.of(self.around, size, self.settings.pictures).pool
        return LatentStore(
            pool, self.autoencoder, self.scorer, self.found[1], resident=self.around.resident
        )

    def kept(self) -> Tensor:
        """A cosine schedule's."""
        kept: Tensor = scheduler().alphas_cumprod
        return kept

    def build(self) -> nn.Module:
        """The denoiser, fresh; it begins by predicting nothing."""
        s, own = self.settings, self.autoencoder
        side = int(own.vae.config.sample_size) // own.factor
        encoder, _ = self.reader
        net = PortraitDenoiser(
            in_channels=own.channels, sample_size=side, patch_size=s.patch, width=s.width,
            heads=s.heads, layers=s.layers, text_width=encoder.config.hidden_size,
            embed_width=self.scorer.width, image_tokens=s.image_tokens,
        )  # fmt: skip
        net.suit(self.around.device)
        bare: nn.Module = ReadDenoiser(net, s.read_after) if s.facts else net
        return bare

    @staticmethod
    def inside(model: nn.Module) -> nn.Module:
        """The denoiser itself, without a wrapper and without what is read off its tokens."""
        bare = ToldObjective.inside(model)
        return bare.net if isinstance(bare, ReadDenoiser) else bare

    def batch(self, share: Share) -> NoisyBatch:
        """Latents of the pool with fresh noise, and what is told of them."""
        pool, repeats = self.store.pool, self.settings.repeats
        return self.noised(
            pool.rows(share.seed, share.position, share.size, repeats=repeats), share
        )

    def noised(self, rows: np.ndarray, share: Share) -> NoisyBatch:
        """This process's part of a batch of those rows of the pool, its chances the share's."""
        rows, labels = without_kept_words(rows, self.store.pool.labels(rows))
        latents, features = self.store.take(rows[share.rows])
        stream = share.generator("noise")
        noise = torch.randn(share.size, *latents.shape[1:], generator=stream)[share.rows]
        luck = torch.rand(share.size, 3, generator=stream)
        shown = luck[:, 0] >= self.settings.unseen
        silent = luck[:, 1] < self.settings.unsaid
        silent |= shown & (luck[:, 2] < self.settings.apart)
        words = self.words(labels, silent.tolist(), share)
        return NoisyBatch(
            latents, noise, self.times(share, share.generator("times")), words.states, words.mask,
            words.pooled, features, shown[share.rows].float(), truth_of(labels, share.rows),
        )  # fmt: skip

    def loss(self, model: nn.Module, batch: NoisyBatch, share: Share) -> tuple[Tensor, Losses]:
        """The weighted mean square of the error of v."""
        output, logits = self._output(model, batch), None
        if isinstance(output, tuple):
            output, logits = output
        square, snr = self._square(output, batch)
        error = square.flatten(1).mean(1)
        weight = (snr + 1).clamp(max=self.settings.cap) / (snr + 1)
        total = (weight * (error + self._worded(square))).mean()
        told = {"v": error.mean(), "v_noisy": _mean(error, snr < 0.1)}
        if logits is not None and batch.truth is not None:
            told["facts"] = facts_apart(logits, batch.truth)
            total = total + self.settings.facts * told["facts"]
        return total, {name: part.detach() for name, part in told.items()}

    def _signal(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """The parts [n, 1, 1, 1] of signal and of noise of each row."""
        a, s = (each.to(batch.times.device)[batch.times] for each in self.levels)
        return a.view(-1, 1, 1, 1), s.view(-1, 1, 1, 1)

    def _output(self, model: nn.Module, batch: NoisyBatch) -> Any:
        """What a model says of the noisy latents."""
        a, s = self._signal(batch)
        return model(
            a * batch.latents + s * batch.noise, batch.times, batch.states, batch.mask,
            batch.pooled, batch.image, batch.shown,
        )  # fmt: skip

    def _square(self, output: Tensor, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """Square errors of v [n, C, h, w], and each row's signal-to-noise ratio [n]."""
        a, s = self._signal(batch)
        wanted = a * batch.noise - s * batch.latents
        return (output.float() - wanted).square(), (a / s).square().flatten()

    @cached_property
    def lettered(self) -> Tensor:
        """Where words lie, [h, w] in [0, 1] on the grid of the latents."""
        size = int(self.autoencoder.vae.config.sample_size)
        return place_of("sign", size // self.autoencoder.factor, size=size)

    def _worded(self, square: Tensor) -> Tensor:
        """What each row's errors count for [n] besides, where words lie.

        Rows without a word count alike: were they left out, the mean that a square error leads to
        would show more words than there are.
        """
        if not self.settings.words:
            return square.new_zeros(len(square))
        placed = (square * self.lettered.to(square.device)).flatten(1).mean(1)
        counted: Tensor = self.settings.words * placed
        return counted

    # ----------------------------------------------------------------------- looking

    @cached_property
    def looked_at(self) -> tuple[Looks, Tensor, Tensor]:
        """The monitor's portraits with captions; their latents and features."""
        size = int(self.autoencoder.vae.config.sample_size)
        looks = world_looks(self.scorer, size, MONITOR_COUNT, MONITOR_SEED, "val")
        with torch.no_grad():
            images = looks.images.to(self.around.device)
            parts = torch.split(images, 32)
            latents = torch.cat([self.autoencoder.encode(part).float() for part in parts])
            features = torch.cat([self.scorer.embed_images(part) for part in parts])
        return looks, latents, features

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The error of v told words, a picture or nothing, and what the guiding CLIP says."""
        bare: Any = self.inside(model)
        looks, latents, features = self.looked_at
        words, silence = self.read(looks.words), self.read([""] * len(latents))
        ways = {"words": (words, 0.0), "picture": (silence, 1.0), "nothing": (silence, 0.0)}
        found = {
            f"monitor_v_{name}": self._watched(bare, latents, features, *told)
            for name, told in ways.items()
        }
        return found | self._preferred(bare)

    def _watched(
        self, model: nn.Module, latents: Tensor, features: Tensor, words: Words, shown: float
    ) -> float:
        """The mean error of v at evenly spread time steps."""
        count, steps = len(latents), len(self.levels[0])
        stream = torch.Generator().manual_seed(0)
        noise = torch.randn(latents.shape, generator=stream).to(latents.device)
        times = (torch.arange(count) % _MIDDLES * 2 + 1) * steps // (2 * _MIDDLES)
        batch = NoisyBatch(
            latents, noise, times.to(latents.device), words.states.float(), words.mask.float(),
            words.pooled, features, latents.new_full((count,), shown),
        )  # fmt: skip
        return float(self._square(self._output(model, batch), batch)[0].mean())

    def _preferred(self, model: PortraitDenoiser) -> dict[str, float]:
        """How often the guiding CLIP prefers a picture's caption to a near miss, and by how much.

        Half the pictures are made of words, half of real pictures' embeddings.
        """
        looks, _, features = self.looked_at
        generator = self.generator(model)
        found = {}
        for name, image in (("words", None), ("picture", features[:MADE])):
            texts = looks.words[:MADE] if image is None else [""] * MADE
            seen = self.scorer.embed_images(made(generator, texts, image)).cpu()
            true, false = (seen * looks.texts[:MADE]).sum(1), (seen * looks.wrong[:MADE]).sum(1)
            found[f"monitor_prefers_{name}"] = float((true > false).float().mean())
            found[f"monitor_cosine_{name}"] = float(true.mean())
        return found

    def generator(self, model: PortraitDenoiser) -> Diffusion:
        """The whole generator around a denoiser, in the precision of the frozen models."""
        return assembled(
            copy.deepcopy(model), scheduler(), self.autoencoder, self.scorer, self.place
        )

    # ----------------------------------------------------------------------- the product

    def product(self, model: nn.Module) -> Product:
        """The folder of the denoiser and its scheduler, with the names of what it shares."""
        bare: Any = self.inside(model)
        looks, _, features = self.looked_at
        drawn = features.cpu()[:MADE]
        true, false = (drawn * looks.texts[:MADE]).sum(1), (drawn * looks.wrong[:MADE]).sum(1)
        best = {"prefers": float((true > false).float().mean()), "cosine": float(true.mean())}
        others = float((drawn * looks.texts[:MADE].roll(1, 0)).sum(1).mean())
        seen = self.monitor(bare)
        floors = {"v": seen.pop("monitor_v_nothing"), "prefers": 0.5, "cosine": others}
        metrics = {}
        for name, value in seen.items():
            kind = name.removeprefix("monitor_").partition("_")[0]
            metrics[name] = Metric(value, floors[kind], best.get(kind, 0.0))
        parts = Parts(
            self.settings.vae, self.found[1], self.settings.scorer, self.scorer.fingerprint
        )
        notes = (
            f"Predicts v; {STEPS} steps of DPM++ 2M at cfg {CFG:g} for the monitor, which asks the "
            f"guiding CLIP about {MADE} pictures of captions and as many of pictures' embeddings; "
            "ceiling: the renderer's own pictures; floor of the error of v: told nothing."
        )
        return Product(
            role="denoiser", kind="pixart", metrics=metrics, notes=notes,
            weights=f"{TRANSFORMER}/{WEIGHTS}", files=folder_files(bare, parts),
            tensors=bare.state_dict(),
        )  # fmt: skip

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped denoiser back."""
        self.inside(model).load_state_dict(dict(tensors))

    def close(self) -> None:
        """End the drawing workers."""
        if "store" in self.__dict__:
            self.store.pool.close()


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
