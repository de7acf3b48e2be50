"""How a picture differs from the drawing it should be, for regressions of whole pictures."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.scorers.clip import ClipScorer

#: Blocks of a picture tower whose maps are compared.
_BLOCKS = [0, 1, 2, 3]
#: What a difference of a pixel from its surroundings (in [-1, 1]) counts as fully a detail.
_STRONG = 0.3


def edges(images: Tensor) -> Tensor:
    """Differences [B, 6, H-1, W-1] between neighbours across and down of images [B, 3, H, W]."""
    inner = images[..., :-1, :-1]
    return torch.cat([images[..., :-1, 1:] - inner, images[..., 1:, :-1] - inner], 1)


def detail(images: Tensor) -> Tensor:
    """How unlike its surroundings each pixel is: [B, 1, H, W] in [0, 1]."""
    side = images.shape[-1] // 16
    around = F.interpolate(F.avg_pool2d(images, side), scale_factor=side, mode="bilinear")
    apart = (images - around).abs().mean(1, keepdim=True)
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
    prepared = scorer.preprocess.normalise(0.5 * images + 0.5).to(scorer.device.dtype)
    prepared = prepared.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, enabled=False):
        found: list[Tensor] = visual.forward_intermediates(
            prepared, indices=_BLOCKS, stop_early=True, intermediates_only=True
        )["image_intermediates"]
    return found
