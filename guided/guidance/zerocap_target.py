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
    return functional.normalize(_sum(features, weights), dim=0)


def turned(own: Tensor, terms: Tensor, weights: Sequence[float]) -> Tensor:
    """The unit vector [D] of a picture's feature [D] and a weighted sum of others [K, D].

    Where something is added and something taken away, their difference is first brought to the
    length that the weights name (half the sum of their sizes): two pictures of one person have
    nearly the same feature, so that what tells them apart would be drowned by a third.

    Raises:
        UsageError: not one weight for each of the others.
        CannotDo: a sum that cancels to nothing.
    """
    if not weights:
        return functional.normalize(own, dim=0)
    turn = _sum(terms, weights)
    if min(weights) < 0 < max(weights):
        size = 0.5 * sum(abs(weight) for weight in weights)
        turn = functional.normalize(turn, dim=0) * size * own.norm()
    return mixed(torch.stack([own, turn]), [1.0, 1.0])


def _sum(features: Tensor, weights: Sequence[float]) -> Tensor:
    if len(weights) != len(features):
        raise UsageError(f"{len(features)} terms need as many weights, not {len(weights)}.")
    factors = torch.tensor(list(weights), dtype=features.dtype, device=features.device)
    total = factors @ features
    if float(total.norm()) <= 1e-6 * float(features.norm(dim=1).max()):
        raise CannotDo(
            "These terms cancel each other, so nothing is left to describe.",
            hint="Change a weight or leave a term out.",
        )
    return total
