"""Identity loss (ArcFace): one minus the cosine of two face embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality


@dataclass(frozen=True)
class Identity(Loss):
    """1 - cos(f(picture), f(start)), in [0, 2]; the start's features are computed once.

    f is the context's model ``identity``: anything with ``embed_images`` to unit vectors.
    Source: Patashnik et al. 2021 (StyleCLIP), eq. 2.
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ("identity",)

    def bind(self, context: LossContext) -> BoundLoss:
        """Embed the start once."""
        model = context.need_model("identity", self.kind)
        with torch.no_grad():
            before: Tensor = model.embed_images(context.start.image)

        def loss(candidate: Candidate) -> Tensor:
            now: Tensor = model.embed_images(candidate.image)
            return 1 - (now * before).sum(1)

        return loss
