"""Perceptual distance (LPIPS): how far deep features are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality
from guided.core.targets import target_image


@dataclass(frozen=True)
class Perceptual(Loss):
    """The perceptual distance to the context's ``target`` picture, or else to the start; 0 is
    equal.
    The measure is the context's model ``perceptual``: ``features(images)`` and
    ``distance(features, features) -> [B]``; its ``name`` says which trunk it is, for a distance
    is comparable only under one trunk.
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ("perceptual",)

    def bind(self, context: LossContext) -> BoundLoss:
        """Compute the target's features once."""
        model = context.need_model("perceptual", self.kind)
        with torch.no_grad():
            wanted = model.features(target_image(context))

        def loss(candidate: Candidate) -> Tensor:
            distance: Tensor = model.distance(model.features(candidate.image), wanted)
            return distance

        return loss
