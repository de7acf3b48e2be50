"""CLIP loss over next words (ZeroCap): the language model should say what CLIP prefers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided.core.language_model import Continuations, TextCandidate
from guided.core.objective import BoundLoss, Loss, LossContext, Modality


@dataclass(frozen=True)
class WordClip(Loss):
    """Cross entropy [B] between CLIP's choice among likely next words and the language model's.

    The ``candidates`` most likely tokens are scored as continuations of the text so far; CLIP's
    choice is the softmax of their cosines over ``temperature``, plus ``prior`` times their
    log-probability without guidance: at 0, as in the paper, words that are all the same to CLIP
    are drawn together whatever the sentence needs; at 1 they keep their odds.  With a prior the
    candidates are the likeliest without guidance, the same in every step.  The model's
    probabilities are those of the whole vocabulary, so probability outside the candidates costs
    too.  No gradient flows through CLIP.  The context's model ``continuations`` does the scoring.

    Source: Tewel et al. 2022 (ZeroCap), equations 3 and 4.
    """

    modality: ClassVar[Modality] = "text"
    needs: ClassVar[tuple[str, ...]] = ("continuations",)

    candidates: int = 512
    temperature: float = 0.01
    prior: float = 0.0

    def bind(self, context: LossContext) -> BoundLoss:
        """The loss for rows whose continuations the context can score."""
        continuations: Continuations = context.need_model("continuations", self.kind)

        def cross_entropy(candidate: TextCandidate) -> Tensor:
            spoken = candidate.log_probabilities
            tokens = likeliest(candidate.plain if self.prior else spoken, self.candidates)
            with torch.no_grad():
                wanted = continuations.cosines(tokens) / self.temperature
                if self.prior:
                    wanted = wanted + self.prior * candidate.plain.gather(1, tokens)
                chosen = torch.softmax(wanted, dim=-1)
            return -(chosen * spoken.gather(1, tokens)).sum(dim=-1)

        return cross_entropy


def likeliest(log_probabilities: Tensor, count: int) -> Tensor:
    """The ``count`` most likely tokens of each row, most likely first: [B, min(count, V)]."""
    return log_probabilities.detach().topk(min(count, log_probabilities.shape[1])).indices
