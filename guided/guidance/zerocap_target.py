"""What a caption should fit: one embedding, or a weighted sum of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from guided.errors import CannotDo, UsageError


def mixed(features: Tensor, weights: Sequence[float]) -> Tensor:
    """The unit vector [D] of a weighted sum of features [K, D], of images, texts or both.

    Features of unit length all count as their weight says; un-normalised ones, which the
    reference sums, count by their length too.

    Raises:
        UsageError: not one weight for each feature.
        CannotDo: a sum that cancels to nothing.
    """
    if len(weights) != len(features):
        raise UsageError(f"{len(features)} terms need as many weights, not {len(weights)}.")
    factors = torch.tensor(list(weights), dtype=features.dtype, device=features.device)
    total = factors @ features
    if float(total.norm()) <= 1e-6 * float(features.norm(dim=1).max()):
        raise CannotDo(
            "These terms cancel each other, so nothing is left to describe.",
            hint="Change a weight or leave a term out.",
        )
    return functional.normalize(total, dim=0)
