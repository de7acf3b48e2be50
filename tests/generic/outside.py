"""A loss as a user's own package holds it: one file, with a model of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext


@cache
def critic(place: torch.device) -> nn.Module:
    """The loss's own model, loaded once: the mean of blue less that of red."""
    net = nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1))
    return net.requires_grad_(False).to(place)


@dataclass(frozen=True)
class Warm(Loss):
    """Mean of softplus(blue - red + ``margin``) over the image: [B], less is warmer."""

    margin: float = 0.1

    def bind(self, context: LossContext) -> BoundLoss:
        """Load the critic once."""
        model = critic(context.device)

        def loss(candidate: Candidate) -> Tensor:
            return nn.functional.softplus(model(candidate.image) + self.margin).flatten(1).mean(1)

        return loss
