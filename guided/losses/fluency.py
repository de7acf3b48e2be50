"""Fluency: a guided language model should not stray from what it would have said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guided.core.objective import BoundLoss, Loss, Scene, Sight
from guided.core.words import WordDraft


@dataclass(frozen=True)
class Fluency(Loss):
    """KL divergence [B] in nats of the guided next-token distribution from the plain one.

    Computed from log-probabilities, so tokens whose probability underflows add zero and not NaN.

    Source: Tewel et al. 2022 (ZeroCap), equation 2.
    """

    sees: ClassVar[Sight] = "words"

    def bind(self, scene: Scene) -> BoundLoss:
        """The loss; nothing needs to be prepared."""
        return divergence


def divergence(draft: WordDraft) -> Tensor:
    """KL(guided || plain) [B] in nats."""
    spoken = draft.log_probabilities
    return (spoken.exp() * (spoken - draft.plain)).sum(dim=-1)
