"""Augmentation of a user's images that changes no meaning: resized crops, light, flips."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.training.objective import BatchContext

#: The smallest crop's side and how far its sides differ, as shares; how far light and color go.
CROP, STRETCH, LIGHT = 0.8, 0.08, 0.15
#: Words of a caption after which a mirrored image would be another, in some languages.
_SIDED = re.compile(
    r"\b(?:left|right|(?:counter|anti)?-?clockwise|clocks?|east\w*|west\w*|text|letters?|words?|"
    r"writing|written|signs?|numbers?|digits?|keycap|logo|flags?|maps?|arrows?|mirror\w*|"
    r"says|reads|reading|links?|rechts?|gauche|droite?|izquierd\w|derech\w|sinistr\w|destr\w|"
    r"esquerd\w|direit\w)\b|[左右]|\d",
    re.IGNORECASE,
)


def may_flip(captions: Sequence[str]) -> bool:
    """Whether an image may be mirrored: no caption names a side, writing or a number."""
    return not any(_SIDED.search(caption) for caption in captions)


def augmented(pixels: Tensor, flips: Tensor, share: BatchContext, strength: float) -> Tensor:
    """This process's rows of a batch, images uint8 [n, 3, S, S], each changed a little.

    Crops of at least ``1 - 0.2 strength`` of the side, resized; brightness, contrast and saturation
    by up to ``0.15 strength``; half of the rows where ``flips`` [n] bool are mirrored.  No hue:
    captions name colors.  ``strength`` 0 changes nothing.
    """
    if not strength:
        return pixels
    uniform = torch.rand(share.size, 8, generator=share.generator("augment"))[share.rows]
    signed = 2 * uniform - 1
    side = 1 - strength * (1 - CROP) * uniform[:, :1]
    stretch = strength * STRETCH * signed[:, 1:2]
    sides = (side * torch.cat([1 + stretch, 1 - stretch], 1)).clamp(max=1)
    mirrored = torch.where(flips & (uniform[:, 2] < 0.5), -1.0, 1.0)
    theta = torch.zeros(len(pixels), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = sides[:, 0] * mirrored, sides[:, 1]
    theta[:, :, 2] = (1 - sides) * signed[:, 3:5]
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    images = F.grid_sample(
        pixels.float().div(255), grid, padding_mode="border", align_corners=False
    )
    gain, contrast, saturation = 1 + strength * LIGHT * signed.T[5:8, :, None, None, None]
    images = images * gain
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    gray = images.mean(1, keepdim=True)
    images = gray + saturation * (images - gray)
    changed: Tensor = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    return changed
