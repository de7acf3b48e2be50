"""Trains the StyleGAN2 of drawn portraits: z to the picture whose facts z holds.

The drawn world is a function of z (``latent_world``) and the mapping network puts
its facts into W (``latent_mapping``).  So each picture of the pool comes with a z,
drawn anew at each visit, and the synthesis network learns it as a regression: no adversary is
needed for the pictures to be right.  What is compared are pixels, edges and the maps of the guiding
CLIP's picture tower.  Training begins at half the size, where a step costs half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.nets.stylegan2 import StyleGAN2Shape
from guided.scorers.clip import ClipScorer
from guided.training.objective import (
    BatchContext,
    Metric,
    Parts,
    Product,
)
from guided.training.reconstruction_losses import (
    ReconstructionSettings,
    detail,
    edges,
    feature_distance,
    pixels_apart,
    signed_images,
    tower_of,
)
from guided.worlds.portraits.splits import Split, sample
from guided.worlds.portraits.training.adversary import (
    LAZY,
    AdversaryPhase,
    Discriminator,
    contest,
    critic_loss,
    gradient_penalty,
)
from guided.worlds.portraits.training.latent_mapping import DEPTH, SCALE, install, trait_columns
from guided.worlds.portraits.training.latent_world import LATENT, conditional, geometry_of
from guided.worlds.portraits.training.pictures import PictureObjective, PictureSettings, drawn_apart
from guided.worlds.portraits.training.stylegan2_form import TrainableStyleGAN2
from guided.worlds.portraits.training.stylespace import statistics
from guided.worlds.portraits.training.world_data import RenderedRows

#: World seeds of the monitor's own pictures, far from those of every published figure.
MONITOR_SEED, MONITOR_COUNT = 6_000_000, 256
AVERAGED = 8192


class StyleGAN2Settings(ReconstructionSettings, PictureSettings):
    """The ``[settings]`` of a portrait generator's recipe."""

    channels: tuple[int, ...] = Field((192, 192, 128, 96, 64, 32), description="from 4 px up")
    style: int = Field(128, ge=1, description="size of w")
    grown: int = Field(0, ge=0, description="samples until the full size; before, half of it")
    truncation: float = Field(
        0.6, gt=0, le=1, description="lowest truncation of values in training"
    )
    noise: float = Field(0.05, ge=0, description="noise on the values in w, as a share of one")
    adversary: float = Field(0.0, ge=0, description="weight of a discriminator; 0: without one")
    critic: tuple[int, ...] = Field((24, 48, 96, 128, 128), description="its widths")
    begin: int = Field(0, ge=0, description="samples after which it begins to learn")
    ramp: int = Field(16_000, ge=0, description="samples it learns alone, and then gains weight")
    penalty: float = Field(2.0, ge=0, description="weight of the R1 penalty")


@dataclass(frozen=True)
class PairedBatch:
    """Pictures uint8 [n, 3, size, size], their z [n, 128], truncation [n] and noise [n, style]."""

    pictures: Tensor
    z: Tensor
    psi: Tensor
    noise: Tensor


class PairedGenerator(nn.Module):
    """The generator in training, with the middle of W."""

    centre: Tensor

    def __init__(self, shape: StyleGAN2Shape, critic: Sequence[int] = ()) -> None:
        super().__init__()
        self.generator = TrainableStyleGAN2(shape)
        self.critic = Discriminator(shape.style, critic) if critic else None
        install(self.generator.net.style)
        self.generator.net.style.requires_grad_(False)
        self.register_buffer("centre", self._middle())
        self._begin()

    @torch.no_grad()
    def _middle(self) -> Tensor:
        z = np.random.default_rng(0).standard_normal((AVERAGED, LATENT))
        return self.generator.mapping(torch.from_numpy(z)).mean(0)

    @torch.no_grad()
    def _begin(self) -> None:
        """Style codes of mean 1 over W; the last colours begin as those of the level below."""
        for name, layer in self.generator.net.named_modules():
            if name.endswith("modulation"):
                pull: Any = layer
                pull.bias.copy_(1 - F.linear(self.centre, pull.weight * pull.scale))
        last: Any = self.generator.net.to_rgbs[-1]
        last.conv.weight.zero_()

    def forward(
        self, batch: PairedBatch, truth: Tensor, phase: AdversaryPhase
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Pictures [n, 3, size, size] at the size of ``truth``, the critic's loss and its penalty.

        ``batch.psi`` draws the values towards their mean while the geometry stays: the picture is
        the same, only said less clearly.
        """
        w = self.generator.mapping(batch.z)
        values = trait_columns().start
        drawn = self.centre + batch.psi[:, None] * (w - self.centre) + SCALE * batch.noise
        moved = torch.cat([drawn[:, :values], w[:, values:]], 1)
        picture: Tensor = self.generator(moved, truth.shape[-1])
        picture = picture + 0 * sum(p.sum() for p in self._idle(truth.shape[-1], phase))
        if self.critic is None or not phase.open:
            return picture, None, None
        judged = contest(self.critic, picture, truth, w, phase.push)
        penalty = gradient_penalty(self.critic, truth, w) if phase.penalised else None
        return picture, critic_loss(*judged), penalty

    def _idle(self, size: int, phase: AdversaryPhase) -> list[nn.Parameter]:
        """What has no part in this step; it gets a gradient of 0, so that all processes agree."""
        idle = list(self.generator.net.parameters()) if size < self.generator.shape.size else []
        idle += list(self.critic.parameters()) if self.critic and not phase.open else []
        return [p for p in idle if p.requires_grad]


class StyleGAN2Objective(PictureObjective[PairedBatch]):
    """Pixels, edges and CLIP maps of each picture, from z."""

    name = "stylegan2"
    Settings = StyleGAN2Settings

    @property
    def size(self) -> int:
        """The side of the pictures."""
        side: int = 4 * 2 ** (len(self.settings.channels) - 1)
        return side

    @cached_property
    def scorer(self) -> ClipScorer | None:
        """The guiding CLIP, frozen; None where its maps have no weight."""
        return tower_of(self.settings, self.ctx.device)

    def build(self) -> nn.Module:
        """The generator, its mapping known, its synthesis fresh."""
        s = self.settings
        shape = StyleGAN2Shape(self.size, s.style, LATENT, DEPTH, s.channels)
        return PairedGenerator(shape, s.critic if s.adversary else ())

    def batch(self, share: BatchContext) -> PairedBatch:
        """Rows of the pool, each with a fresh z that says the same."""
        source, stream = self.pictures, share.generator("w")
        rows = self.rows(share, slice(None))
        z = z_of(source.pool.labels(rows), "train", share.number("z"))[share.rows]
        low = self.settings.truncation
        psi = low + (1.05 - low) * torch.rand(share.size, generator=stream)
        noise = self.settings.noise * torch.randn(share.size, self.settings.style, generator=stream)
        _, pictures = source.take(rows[share.rows])
        return PairedBatch(pictures, z, psi[share.rows], noise[share.rows])

    def loss(
        self, model: nn.Module, batch: PairedBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """The weighted sum of the differences between picture and drawing."""
        s, samples = self.settings, share.position * share.size
        truth = signed_images(batch.pictures, self.size // 2 if samples < s.grown else self.size)
        phase = AdversaryPhase.at(
            samples, share.position, begin=s.begin, ramp=s.ramp, weight=s.adversary
        )
        made, contested, penalty = model(batch, truth, phase)
        parts = pixels_apart(made, truth, 1 + s.details * detail(truth))
        if self.scorer is not None:
            parts["features"] = feature_distance(self.scorer, made, truth)
        total = sum((getattr(s, name) * part for name, part in parts.items()), made.new_zeros(()))
        if contested is not None:
            total, parts["critic"] = total + contested, contested.detach()
        if penalty is not None:
            total = total + LAZY * s.penalty * penalty
        return total, {**parts, "l1": 0.5 * (made - truth).detach().abs().mean()}

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Mean differences on new portraits, colours in [0, 1], and their share of sharpness."""
        generator: Any = self.inside(model)
        device = next(model.parameters()).device
        z, pictures = self._val_set
        truth = signed_images(pictures.to(device), self.size)
        made = torch.cat(
            [
                generator.generator(generator.generator.mapping(part))
                for part in torch.split(z.to(device), 16)
            ]
        ).clamp(-1, 1)
        sharp = edges(made).abs().mean() / edges(truth).abs().mean()
        return {
            "monitor_l1": float(0.5 * (made - truth).abs().mean()),
            "monitor_edges": float(0.5 * (edges(made) - edges(truth)).abs().mean()),
            "monitor_sharpness": float(sharp),
        }

    @cached_property
    def _val_set(self) -> tuple[Tensor, Tensor]:
        """z [n, 128] and pictures [n, 3, size, size] of the monitor's portraits."""
        count = min(MONITOR_COUNT, self.settings.pictures)
        drawn, pictures = drawn_apart(self.ctx, "val", MONITOR_SEED, self.size, count)
        return z_of(drawn, "val", 0), pictures

    def product(self, model: nn.Module) -> Product:
        """The published form, with the mean of w and the statistics of StyleSpace."""
        bare: Any = self.inside(model)
        state = bare.generator.export()
        tensors = {f"g_ema.{name}": value for name, value in state.items()}
        tensors["latent_avg"] = bare.centre.clone()
        tensors |= statistics(bare.generator.net)
        grey = {"monitor_l1": self._grey(), "monitor_sharpness": 0.0}
        metrics = {
            name: Metric(value, grey.get(name), 1.0 if name == "monitor_sharpness" else 0.0)
            for name, value in self.monitor(model).items()
        }
        rival = "beside" if self.settings.adversary else "without"
        notes = (
            f"Learnt as a regression from z to the picture whose facts z holds, {rival} an "
            "adversary; the mapping network is given, so facts are directions of W. Monitor: 256 "
            "new portraits, colours in [0, 1]; floor: the mean picture."
        )
        return Product(
            role="generator", kind="stylegan2", metrics=metrics, notes=notes, tensors=tensors
        )

    def _grey(self) -> float:
        """The mean difference of the mean picture."""
        truth = signed_images(self._val_set[1], self.size)
        return float(0.5 * (truth - truth.mean(0)).abs().mean())

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped generator back."""
        bare: Any = self.inside(model)
        prefix = "g_ema."
        bare.generator.take(
            {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        )


def z_of(drawn: RenderedRows, split: Split, seed: int) -> Tensor:
    """Vectors z [n, 128] float32 that say what these pictures show; ``seed`` picks among them."""
    geometry = np.stack([geometry_of(sample(int(world), split)) for world in drawn.seeds])
    z = conditional(drawn.codes, geometry, np.random.default_rng(seed))
    return torch.from_numpy(z).float()
