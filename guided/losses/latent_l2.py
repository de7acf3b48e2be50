"""L2 distance of a latent from where it began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality


@dataclass(frozen=True)
class LatentL2(Loss):
    """|latent - start|^2 over all leaves, for each row.

    ``form`` is how the squares are put together: a sum (StyleCLIP's optimisation) or a mean
    (its mapper).  A sum grows with the latent's size, so weights carry over between generators of
    one size only.
    """

    modality: ClassVar[Modality] = "latent"
    needs: ClassVar[tuple[str, ...]] = ()

    form: Literal["sum", "mean"] = "sum"

    def bind(self, context: LossContext) -> BoundLoss:
        """Keep the start."""
        start = {name: leaf.detach() for name, leaf in context.start.latent.items()}

        def loss(candidate: Candidate) -> Tensor:
            squares = [
                (leaf - start[name]).square().flatten(1) for name, leaf in candidate.latent.items()
            ]
            together = torch.cat(squares, dim=1)
            return together.sum(1) if self.form == "sum" else together.mean(1)

        return loss
