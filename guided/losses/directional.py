"""Directional CLIP loss (StyleGAN-NADA): the image moves in CLIP's space as the texts do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality
from guided.core.prompts import PLAIN, text_direction
from guided.core.views import View, embed_candidate
from guided.errors import CannotDo

_SHORTEST = 1e-3  # below this length a direction is not normalised: its gradient would explode


@dataclass(frozen=True)
class Directional(Loss):
    """1 - cos(E(picture) - E(start), T(text) - T(source)), in [0, 2].

    ``source`` says in words what the start shows; ``templates`` are sentences with {} for the
    text, whose embeddings are averaged.  Without ``text`` each row follows its own prompt, and
    with an empty ``source`` it leaves its own words: the context's extra ``sources``.  At the start
    itself the picture's difference is zero and the loss 1.  ``preprocess`` is how the CLIP sees the
    image.
    Source: Gal et al. 2021 (StyleGAN-NADA, arXiv 2108.00946), eq. 2.
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ("scorer",)

    text: str | None = None
    source: str | None = "a portrait"
    templates: tuple[str, ...] = PLAIN
    preprocess: View = "clip"

    def bind(self, context: LossContext) -> BoundLoss:
        """Encode the texts and the start once.

        Raises:
            CannotDo: neither ``source`` nor the context says what the start shows.
        """
        scorer = context.need_scorer(self.kind)
        prompts = context.prompts if self.text is None else (self.text,)
        words = text_direction(scorer, prompts, self._sources(context), self.templates)
        with torch.no_grad():
            before = embed_candidate(context.start, scorer, self.preprocess)

        def loss(candidate: Candidate) -> Tensor:
            change = embed_candidate(candidate, scorer, self.preprocess) - before
            return 1 - (F.normalize(change, dim=1, eps=_SHORTEST) * words).sum(1)

        return loss

    def _sources(self, context: LossContext) -> Sequence[str]:
        if self.source:
            return (self.source,)
        if "sources" not in context.extras:
            raise CannotDo(
                f"The loss {self.kind!r} is not told what the picture shows.",
                hint="Give its key source, such as 'a portrait'.",
            )
        own: Sequence[str] = context.extras["sources"]
        return own
