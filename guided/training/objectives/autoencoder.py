"""Trains the autoencoder (VAE) of a latent diffusion model, with a tiny one of the same latents.

An AutoencoderKL of diffusers, folded (``guided.nets.folded_autoencoder``).  What is compared are
pixels, edges and the feature maps of a CLIP's image tower, with more weight where a pixel is unlike
its surroundings, since a detail has only a few.  Latents are held near mean 0 and deviation 1 in
every channel while it learns, and what remains is put into the weights at the end.  Beside it an
AutoencoderTiny learns to make and to decode the same latents, for previews and for guidance, and a
linear map from latents to colours is fitted in closed form.
Source: Rombach et al. 2022 (latent diffusion), section 3.1; O. B. Bohan's TAESD for the tiny one.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from guided.generators.diffusion.vae import (
    PREVIEW,
    TINY,
    VAE,
    WEIGHTS,
    preview_table,
    unit_latents,
)
from guided.nets.folded_autoencoder import FoldedAutoencoderKL, FoldedAutoencoderTiny
from guided.scorers.clip import ClipScorer
from guided.training.finish import weight_bytes
from guided.training.objective import BatchContext, Metric, ObjectiveSettings, Parts, Product
from guided.training.pair_objective import PairObjective
from guided.training.reconstruction_losses import (
    ReconstructionSettings,
    detail,
    edges,
    feature_distance,
    pixels_apart,
    signed_images,
    tower_of,
)

#: Validation images that the monitor looks at.
MONITOR_COUNT = 256
ROWS = 16


class AutoencoderSettings(ReconstructionSettings):
    """The ``[settings]`` of an autoencoder's recipe."""

    size: int = Field(128, ge=16, multiple_of=16, description="side of the images")
    widths: tuple[int, ...] = Field((32, 48, 64), description="channels, from half the size down")
    layers: int = Field(1, ge=1, description="residual blocks of each size in the encoder")
    channels: int = Field(8, ge=1, description="channels of the latents")
    groups: int = Field(8, ge=1, description="groups of the normalisation")
    tiny: int = Field(16, ge=1, description="channels of the tiny autoencoder")
    tiny_blocks: tuple[int, ...] = Field((3, 2, 1), description="its blocks, smallest size first")
    tiny_from: int = Field(0, ge=0, description="samples after which the tiny one learns")
    details: float = Field(4.0, ge=0, description="further weight of pixels unlike their surround")
    kl: float = Field(5e-4, ge=0, description="weight of the divergence from a normal distribution")
    unit: float = Field(0.1, ge=0, description="weight of the pull to mean 0 and deviation 1")


@dataclass(frozen=True)
class Reconstruction:
    """What both autoencoders make of images, float32; the tiny one's are None while it waits.

    ``made`` [n, 3, S, S] from noisy latents; ``mean``, ``logvar`` [n, C, h, w]; ``tiny`` from the
    same latents; ``guessed`` the tiny encoder's latents.
    """

    made: Tensor
    mean: Tensor
    logvar: Tensor
    tiny: Tensor | None = None
    guessed: Tensor | None = None


class Autoencoders(nn.Module):
    """Both autoencoders as they are trained."""

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        s, levels = settings, len(settings.widths)
        self.vae: Any = FoldedAutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=s.widths, layers_per_block=s.layers, latent_channels=s.channels,
            norm_num_groups=s.groups, sample_size=s.size, scaling_factor=1.0, force_upcast=False,
            mid_block_add_attention=False,
        )  # fmt: skip
        self.tiny: Any = FoldedAutoencoderTiny(
            encoder_block_out_channels=(s.tiny,) * levels,
            decoder_block_out_channels=(s.tiny,) * levels,
            num_encoder_blocks=tuple(reversed(s.tiny_blocks)), num_decoder_blocks=s.tiny_blocks,
            latent_channels=s.channels,
        )  # fmt: skip

    def forward(self, truth: Tensor, *, tiny: bool = True) -> Reconstruction:
        """Images [n, 3, S, S] in [-1, 1] made again from latents with their noise."""
        found = self.vae.encode(truth).latent_dist
        mean, logvar = found.mean.float(), found.logvar.float()
        latents = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        made = self.vae.decode(latents, return_dict=False)[0].float()
        if not tiny:
            idle = sum(p.sum() for p in self.tiny.parameters())
            return Reconstruction(made + 0 * idle, mean, logvar)
        again = self.tiny.decode(latents.detach(), return_dict=False)[0].float()
        guessed = self.tiny.encode(truth).latents.float()
        return Reconstruction(made, mean, logvar, again, guessed)


class AutoencoderObjective(PairObjective[Tensor]):
    """Images that come back from their latents."""

    name = "autoencoder"
    Settings: ClassVar[type[ObjectiveSettings]] = AutoencoderSettings

    @property
    def size(self) -> int:
        """The side of the images."""
        side: int = self.settings.size
        return side

    @cached_property
    def scorer(self) -> ClipScorer | None:
        """The guiding CLIP, frozen; None where its maps have no weight."""
        return tower_of(self.settings, self.ctx.device)

    def build(self) -> nn.Module:
        """Both autoencoders, fresh."""
        return Autoencoders(self.settings).to(memory_format=torch.channels_last)

    def batch(self, share: BatchContext) -> Tensor:
        """Images uint8 [n, 3, S, S]."""
        return self.dataset.pixels(self.dataset.rows(share)[share.rows])

    def loss(self, model: nn.Module, batch: Tensor, share: BatchContext) -> tuple[Tensor, Parts]:
        """The weighted sum of the differences, and what the latents cost."""
        s = self.settings
        truth = signed_images(batch, s.size)
        found: Reconstruction = model(truth, tiny=share.position * share.size >= s.tiny_from)
        weight = 1 + s.details * detail(truth)
        parts = pixels_apart(found.made, truth, weight)
        if self.scorer is not None:
            parts["features"] = feature_distance(self.scorer, found.made, truth)
        parts["kl"] = 0.5 * (found.mean.square() + found.logvar.exp() - 1 - found.logvar).mean()
        parts["unit"] = _unlike_unit(found.mean)
        total = torch.stack([getattr(s, name) * part for name, part in parts.items()]).sum()
        parts["l1"] = 0.5 * (found.made - truth).abs().mean()
        if found.tiny is not None and found.guessed is not None:
            own = pixels_apart(found.tiny, truth, weight)
            parts["latents"] = (found.guessed - found.mean.detach()).abs().mean()
            parts["tiny"] = s.pixels * own["pixels"] + s.edges * own["edges"]
            total = total + parts["tiny"] + parts["latents"]
        return total, {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Mean differences on validation images, colours in [0, 1], and their sharpness."""
        bare: Any = self.inside(model)
        return self._measured(bare.vae, bare.tiny)

    @torch.no_grad()
    def _measured(self, vae: Any, tiny: Any) -> dict[str, float]:
        """The monitor's figures of two autoencoders."""
        truth = self.val_set
        latents = _latents(vae, truth)
        made = _decoded(vae, latents)
        quick = _decoded(tiny, latents)
        guessed = torch.cat([tiny.encode(part).latents for part in torch.split(truth, ROWS)])
        fine = detail(truth)
        apart = 0.5 * (made - truth).abs()
        sharp = edges(made).abs().mean() / edges(truth).abs().mean()
        return {
            "monitor_l1": float(apart.mean()),
            "monitor_detail_l1": float((fine * apart).sum() / (3 * fine.sum())),
            "monitor_edges": float(0.5 * (edges(made) - edges(truth)).abs().mean()),
            "monitor_sharpness": float(sharp),
            "monitor_tiny_l1": float(0.5 * (quick - truth).abs().mean()),
            "monitor_tiny_latents": float((guessed - latents).square().mean().sqrt()),
            "monitor_deviation": float(latents.std((0, 2, 3)).mean()),
        }

    @cached_property
    def val_set(self) -> Tensor:
        """Validation images [n, 3, S, S] in [-1, 1]."""
        images = self.dataset.validation(self.monitor_count).images
        pixels = (images * 255).round().to(torch.uint8)
        return signed_images(pixels.to(self.ctx.device), self.size)

    @property
    def monitor_count(self) -> int:
        """How many of them."""
        return MONITOR_COUNT

    @torch.no_grad()
    def product(self, model: nn.Module) -> Product:
        """diffusers' folders of both, latents of deviation 1, and the linear preview."""
        bare: Any = copy.deepcopy(self.inside(model))
        vae, tiny, truth = bare.vae, bare.tiny, self.val_set
        raw = _latents(vae, truth)
        unit_latents(vae, tiny, raw.mean((0, 2, 3)), raw.std((0, 2, 3)))
        for tensor in (*vae.parameters(), *tiny.parameters()):
            tensor.copy_(tensor.half().float())
        table, _ = self._preview(vae)
        metrics = self.card_figures(bare)
        notes = (
            f"{self.origin()} Latents have mean 0 and deviation 1 in each channel (measured on "
            "validation images and put into the weights). Monitor: colours in [0, 1]; floor: the "
            "mean image."
        )
        return Product(
            role="vae", kind="autoencoder-kl", metrics=metrics, notes=notes,
            licence=self.dataset.licence,
            tensors=vae.state_dict(), weights=f"{VAE}/{WEIGHTS}", files={
                f"{VAE}/config.json": config_of(vae),
                f"{TINY}/config.json": config_of(tiny),
                f"{TINY}/{WEIGHTS}": weight_bytes(tiny.state_dict()),
                PREVIEW: (json.dumps(table) + "\n").encode(),
            },
        )  # fmt: skip

    @torch.no_grad()
    def card_figures(self, model: nn.Module) -> dict[str, Metric]:
        """The monitor's figures between floor and ceiling, and what a linear preview explains."""
        bare: Any = self.inside(model)
        truth = self.val_set
        grey = {"monitor_l1": float(0.5 * (truth - truth.mean(0)).abs().mean()),
                "monitor_sharpness": 0.0}  # fmt: skip
        best = {"monitor_sharpness": 1.0, "monitor_deviation": 1.0}
        metrics = {
            name: Metric(value, grey.get(name), best.get(name, 0.0))
            for name, value in self._measured(bare.vae, bare.tiny).items()
        }
        return {**metrics, "preview_explained": Metric(self._preview(bare.vae)[1], 0.0, 1.0)}

    def _preview(self, vae: Any) -> tuple[list[list[float]], float]:
        """The linear preview of an autoencoder's latents, and the variance it explains."""
        latents = _latents(vae, self.val_set)
        return preview_table(latents, _decoded(vae, latents).clamp(-1, 1))

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped autoencoder back; the tiny one begins anew."""
        bare: Any = self.inside(model)
        bare.vae.load_state_dict(dict(tensors))


def _unlike_unit(latents: Tensor) -> Tensor:
    """How far the channels of latents [n, C, h, w] are from mean 0 and deviation 1: []."""
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return (mean.square() + (deviation - 1).square()).mean()


def _latents(vae: Any, images: Tensor) -> Tensor:
    """The most likely latents [n, C, h, w] of images [n, 3, S, S] in [-1, 1]."""
    return torch.cat([vae.encode(part).latent_dist.mode() for part in torch.split(images, ROWS)])


def _decoded(decoder: Any, latents: Tensor) -> Tensor:
    """Images [n, 3, S, S] in about [-1, 1] of latents."""
    parts = [decoder.decode(part, return_dict=False)[0] for part in torch.split(latents, ROWS)]
    return torch.cat(parts).clamp(-1, 1)


def config_of(module: Any) -> bytes:
    """A diffusers module's config.json, without what its constructor does not take."""
    table = json.loads(module.to_json_string())
    known = inspect.signature(type(module).__init__).parameters
    kept = {key: value for key, value in table.items() if key in known or key.startswith("_")}
    return (json.dumps(kept, indent=2) + "\n").encode()
