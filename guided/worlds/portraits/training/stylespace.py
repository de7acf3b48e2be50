"""What StyleSpace codes of a generator are like: the mean and the spread of each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.core.seeds import Seeds
from guided.nets.stylegan2 import StyleGAN2

COUNT = 20_000


@torch.no_grad()
def statistics(net: StyleGAN2, count: int = COUNT) -> dict[str, Tensor]:
    """The mean and standard deviation [channels] of each StyleSpace code over random z.

    Names are ``stylespace.mean.s_00``, ``stylespace.std.s_00`` and so on, in generator order.
    Source: Wu et al. 2021 (StyleSpace), section 3; Patashnik et al. 2021 (StyleCLIP), section 6.
    """
    z = Seeds.of(5).normal((count, net.shape.latent), "stylespace")[0]
    w = net.mapping(z.to(next(net.parameters()).device))
    found = {}
    for i, code in enumerate(net.codes(net.spread(w))):
        found[f"stylespace.mean.s_{i:02d}"] = code.mean(0)
        found[f"stylespace.std.s_{i:02d}"] = code.std(0)
    return found
