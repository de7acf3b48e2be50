"""CLIP similarity to texts: one minus the cosine of an image and a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality
from guided.core.prompts import embed_prompts
from guided.core.views import View, embed_candidate


@dataclass(frozen=True)
class Clip(Loss):
    """1 - cos(picture, text), in [0, 2].

    Without ``text`` each row follows its own prompt in the context; a text given here is for all
    rows.  A prompt may hold several weighted texts ("purple hair | a hat::-0.3"): the loss is the
    weighted mean sum_i w_i (1 - cos_i) / sum_i |w_i|.  ``preprocess`` is how the
    CLIP sees the image.
    Source: Patashnik et al. 2021 (StyleCLIP), eq. 1.
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ("scorer",)

    text: str | None = None
    preprocess: View = "clip"

    def bind(self, context: LossContext) -> BoundLoss:
        """Encode the prompts once."""
        scorer = context.need_scorer(self.kind)
        prompts = context.prompts if self.text is None else (self.text,)
        texts, weights = embed_prompts(scorer, prompts)

        def loss(candidate: Candidate) -> Tensor:
            seen = embed_candidate(candidate, scorer, self.preprocess)
            cosines = (seen[:, None] * texts).sum(2)
            return (weights * (1 - cosines)).sum(1)

        return loss
