"""Reconstruction losses: how images differ in pixels, edges and a CLIP's feature maps."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from guided.models.loading import load_scorer, placed
from guided.scorers.clip import ClipScorer
from guided.training.objective import ObjectiveSettings

#: Blocks of a picture tower whose maps are compared.
_BLOCKS = [0, 1, 2, 3]
#: What a difference of a pixel from its surroundings (in [-1, 1]) counts as fully a detail.
_STRONG = 0.3


class ReconstructionSettings(ObjectiveSettings):
    """The keys of objectives that reconstruct whole images."""

    pixels: float = Field(4.0, ge=0, description="weight of the absolute difference")
    details: float = Field(2.0, ge=0, description="further weight of pixels unlike their surround")
    edges: float = Field(2.0, ge=0, description="weight of the difference between neighbours")
    features: float = Field(0.5, ge=0, description="weight of the distance in the CLIP's maps")
    scorer: str = Field("clip", description="the CLIP whose maps are compared")
    frozen_precision: Literal["fp32", "bf16"] = Field("bf16", description="its precision")


def tower_of(settings: ReconstructionSettings, device: torch.device) -> ClipScorer | None:
    """The CLIP whose maps are compared, frozen; None where they have no weight."""
    if not settings.features:
        return None
    scorer = load_scorer(settings.scorer, placed(device, settings.frozen_precision))
    scorer.model.to(memory_format=torch.channels_last)
    return scorer


def pixels_apart(made: Tensor, truth: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The mean difference [] of pictures [B, 3, H, W], weighted pixel by pixel, and of edges."""
    return {
        "pixels": (weight * (made - truth).abs()).mean(),
        "edges": (edges(made) - edges(truth)).abs().mean(),
    }


def signed_images(pixels: Tensor, size: int) -> Tensor:
    """Images uint8 [n, 3, H, W] as float32 in [-1, 1], averaged down to ``size``."""
    images = pixels.float().div(127.5).sub(1)
    if images.shape[-1] != size:
        images = F.avg_pool2d(images, images.shape[-1] // size)
    return images.contiguous(memory_format=torch.channels_last)


def edges(images: Tensor) -> Tensor:
    """Differences [B, 6, H-1, W-1] between neighbours across and down of images [B, 3, H, W]."""
    inner = images[..., :-1, :-1]
    return torch.cat([images[..., :-1, 1:] - inner, images[..., 1:, :-1] - inner], 1)


def detail(images: Tensor) -> Tensor:
    """How unlike its surroundings each pixel is: [B, 1, H, W] in [0, 1]."""
    side = images.shape[-1] // 16
    ctx = F.interpolate(F.avg_pool2d(images, side), scale_factor=side, mode="bilinear")
    apart = (images - ctx).abs().mean(1, keepdim=True)
    return F.avg_pool2d((apart / _STRONG).clamp(max=1), 3, 1, 1)


def feature_distance(scorer: ClipScorer, made: Tensor, truth: Tensor) -> Tensor:
    """The mean difference [] of the maps of a CLIP's picture tower, over each picture's mean size.

    Pictures [B, 3, H, W] are in about [-1, 1]; gradients go to ``made`` alone.
    """
    with torch.no_grad():
        wanted = _maps(scorer, truth)
    found = _maps(scorer, made)
    total = made.new_zeros(())
    for a, b in zip(found, wanted, strict=True):
        size = b.abs().mean((1, 2, 3), dtype=torch.float32)
        apart = (a - b).abs().mean((1, 2, 3), dtype=torch.float32)
        total = total + (apart / (size + 1e-3)).mean()
    return total


def _maps(scorer: ClipScorer, images: Tensor) -> list[Tensor]:
    visual: Any = scorer.model.visual
    prepared = scorer.preprocess.normalize(0.5 * images + 0.5).to(scorer.device.dtype)
    prepared = prepared.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, enabled=False):
        found: list[Tensor] = visual.forward_intermediates(
            prepared, indices=_BLOCKS, stop_early=True, intermediates_only=True
        )["image_intermediates"]
    return found
