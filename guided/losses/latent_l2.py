"""Stay near: the squared distance of a latent from where it began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Draft, Loss, Scene, Sight


@dataclass(frozen=True)
class LatentL2(Loss):
    """|latent - start|^2 over all leaves, as a sum (StyleCLIP's optimisation) or a mean (mapper).

    A sum grows with the latent's size, so weights carry over between generators of one size only.
    """

    sees: ClassVar[Sight] = "latent"
    form: Literal["sum", "mean"] = "sum"

    def bind(self, scene: Scene) -> BoundLoss:
        """Keep the start."""
        start = {name: leaf.detach() for name, leaf in scene.start.latent.items()}

        def judge(draft: Draft) -> Tensor:
            squares = [
                (leaf - start[name]).square().flatten(1) for name, leaf in draft.latent.items()
            ]
            together = torch.cat(squares, dim=1)
            return together.sum(1) if self.form == "sum" else together.mean(1)

        return judge
