"""Fluency (ZeroCap): the guided language model should not stray from what it would have said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guided.core.language_model import TextCandidate
from guided.core.objective import BoundLoss, Loss, LossContext, Modality


@dataclass(frozen=True)
class Fluency(Loss):
    """KL divergence [B] in nats of the guided next-token distribution from the plain one.

    Computed from log-probabilities, so tokens whose probability underflows add zero and not NaN.

    Source: Tewel et al. 2022 (ZeroCap), equation 2.
    """

    modality: ClassVar[Modality] = "text"
    needs: ClassVar[tuple[str, ...]] = ()

    def bind(self, context: LossContext) -> BoundLoss:
        """The loss; nothing needs to be prepared."""
        return divergence


def divergence(candidate: TextCandidate) -> Tensor:
    """KL(guided || plain) [B] in nats."""
    spoken = candidate.log_probabilities
    return (spoken.exp() * (spoken - candidate.plain)).sum(dim=-1)
