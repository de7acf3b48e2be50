"""The w that the latent mapping should make of attribute codes."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.worlds.portraits.attributes import VALUES
from guided.worlds.portraits.training.latent_mapping import SCALE, trait_columns, value_columns


def expected_w(codes: Tensor, geometry: Tensor, style: int) -> Tensor:
    """The w [n, style] of codes [n, 13] (255: not there) and geometry [n, 24], off the borders."""
    w = torch.zeros(len(codes), style)
    for column, (key, place) in enumerate(value_columns().items()):
        there = (codes[:, column] < len(VALUES[key])).nonzero()[:, 0]
        w[there, place.start + codes[there, column].long()] = SCALE
    w[:, trait_columns()] = SCALE * (1 + geometry.float())
    return w
