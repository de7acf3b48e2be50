"""Moves on the sphere of CLIP embeddings: between two, towards what words say, and of noise.

Source: Shoemake 1985 (slerp); Ramesh et al. 2022 (unCLIP), section 3, for text diffs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.errors import ShapeError

_NEAR = 1e-4  # radians; nearer than this a chord is an arc to the last bit


def slerp(start: Tensor, end: Tensor, share: float | Tensor) -> Tensor:
    """Unit vectors [B, D] at a share of the arc from ``start`` to ``end``, unit vectors [B, D].

    A share of 0 gives ``start`` and 1 gives ``end``, to the bit.  Nearly parallel vectors are
    joined by their chord; opposite ones by an arc through the axis they point along least.

    Raises:
        ShapeError: other shapes, or another number of shares than rows.
    """
    if start.shape != end.shape or start.ndim != 2:
        raise ShapeError(
            f"Both ends must be [B, D] alike, not {list(start.shape)} and {list(end.shape)}."
        )
    part = torch.as_tensor(share, dtype=start.dtype, device=start.device).reshape(-1, 1)
    if part.shape[0] not in (1, start.shape[0]):
        raise ShapeError(f"{part.shape[0]} shares were given for {start.shape[0]} rows.")
    angle = 2 * torch.atan2((end - start).norm(dim=1), (end + start).norm(dim=1))[:, None]
    across = end - (start * end).sum(1, keepdim=True) * start
    least = F.one_hot(start.abs().argmin(1), start.shape[1]).to(start)
    other = least - (start * least).sum(1, keepdim=True) * start
    opposite = across.norm(dim=1, keepdim=True) < _NEAR
    across = F.normalize(torch.where(opposite, other, across), dim=1)
    arc = (part * angle).cos() * start + (part * angle).sin() * across
    chord = (1 - part) * start + part * end
    found = F.normalize(torch.where(angle < _NEAR, chord, arc), dim=1)
    found = torch.where(part == 0, start, found)
    return torch.where(part == 1, end, found)


def slerp_noise(start: Tensor, end: Tensor, share: float | Tensor) -> Tensor:
    """Noise [B, ...] at a share of the way: directions by slerp, lengths in equal steps.

    Raises:
        ShapeError: other shapes.
    """
    if start.shape != end.shape:
        raise ShapeError(f"Noise of {list(start.shape)} and {list(end.shape)} does not mix.")
    one, two = start.flatten(1), end.flatten(1)
    lengths = [each.norm(dim=1, keepdim=True) for each in (one, two)]
    part = torch.as_tensor(share, dtype=one.dtype, device=one.device).reshape(-1, 1)
    direction = slerp(F.normalize(one, dim=1), F.normalize(two, dim=1), part.flatten())
    found = ((1 - part) * lengths[0] + part * lengths[1]) * direction
    found = torch.where(part == 0, one, found)
    return torch.where(part == 1, two, found).view_as(start)


def slerp_towards(start: Tensor, aim: Tensor, amount: float | Tensor) -> Tensor:
    """Unit vectors ``start`` [B, D] turned to unit directions [B, D] by a part of a right angle,
    one for all or [B], at most all the way; below 0 away from them.

    Raises:
        ShapeError: other shapes.
    """
    angle = (start * aim).sum(1).clamp(-1, 1).acos()
    share = (amount * math.pi / 2 / angle.clamp(min=1e-6)).clamp(max=1.0)
    return slerp(start, aim, share)
