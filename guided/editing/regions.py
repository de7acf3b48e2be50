"""Edits that keep to a region: the new image inside a mask, the source's own pixels outside.

A change of a latent moves the whole image, so a method of one pass cannot spare a part of it; its
images are joined with the source.  (The search of ``optimise`` spares the rest by a loss.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: How far a mask's edge fades inwards, as a share of the side.
FEATHER = 1 / 40


@dataclass(frozen=True)
class Region:
    """Where rows may change: ``fade`` [B, 1, S, S] in [0, 1], and ``outside`` [B, 3, S, S]."""

    fade: Tensor
    outside: Tensor

    @classmethod
    def of(cls, mask: Tensor, outside: Tensor) -> Region:
        """The region of masks [B, 1, S, S], 1 where rows may change, its edge feathered."""
        return cls(feathered(mask), outside)

    def keep(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] with what lies outside of the region put back."""
        return self.outside + self.fade * (images - self.outside)

    def row(self, index: int) -> Region:
        """The region of one row, with a batch of one."""
        one = slice(index, index + 1)
        return Region(self.fade[one], self.outside[one])


def feathered(mask: Tensor) -> Tensor:
    """Masks [B, 1, S, S] that fall to 0 towards their edges; 0 stays 0, nothing grows.

    The mean of the mask and of itself shrunk by 1, 2, ... pixels, so the edge is a straight ramp.
    The image's border is no edge.
    """
    width = max(1, round(FEATHER * mask.shape[-1]))
    shrunk = [-F.max_pool2d(-mask, 2 * by + 1, 1, by) for by in range(width)]
    return torch.stack(shrunk).mean(0)


def changes(before: Tensor, after: Tensor, mask: Tensor | None) -> Tensor:
    """The mean absolute change [B] outside the mask, or everywhere without one."""
    moved = (after - before).abs().mean(1, keepdim=True)
    if mask is None:
        return moved.flatten(1).mean(1)
    keep = (1 - mask).expand_as(moved).flatten(1)
    return (moved.flatten(1) * keep).sum(1) / keep.sum(1).clamp(min=1)


def elsewhere(before: Tensor, after: Tensor) -> Tensor:
    """The mean absolute change [B] of the half of the pixels that change least.

    A sign of how local an edit is where no mask says what may change.
    """
    moved = (after - before).abs().mean(1).flatten(1)
    return moved.sort(dim=1).values[:, : moved.shape[1] // 2].mean(1)
