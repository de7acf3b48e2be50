"""Looks alike: a distance between deep features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Draft, Loss, Scene
from guided.core.targets import target_picture


@dataclass(frozen=True)
class Perceptual(Loss):
    """The perceptual distance to the scene's ``target`` picture, or else to the start; 0 is equal.

    The measure is the scene's model ``perceptual``: ``features(images)`` and
    ``distance(features, features) -> [B]``; its ``name`` says which trunk it is, for a distance
    is comparable only under one trunk.
    """

    def bind(self, scene: Scene) -> BoundLoss:
        """Compute the target's features once."""
        model = scene.need_model("perceptual", self.kind)
        with torch.no_grad():
            wanted = model.features(target_picture(scene))

        def judge(draft: Draft) -> Tensor:
            distance: Tensor = model.distance(model.features(draft.image), wanted)
            return distance

        return judge
