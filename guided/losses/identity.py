"""The same person: one minus the cosine of two face embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Draft, Loss, Scene


@dataclass(frozen=True)
class Identity(Loss):
    """1 - cos(f(picture), f(start)), in [0, 2]; the start's features are computed once.

    f is the scene's model ``identity``: anything with ``embed_images`` to unit vectors.
    Source: Patashnik et al. 2021 (StyleCLIP), eq. 2.
    """

    def bind(self, scene: Scene) -> BoundLoss:
        """Embed the start once."""
        model = scene.need_model("identity", self.kind)
        with torch.no_grad():
            before: Tensor = model.embed_images(scene.start.image)

        def judge(draft: Draft) -> Tensor:
            now: Tensor = model.embed_images(draft.image)
            return 1 - (now * before).sum(1)

        return judge
