"""The picture moves as the words do: one minus the cosine of two CLIP differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import BoundLoss, Draft, Loss, Scene
from guided.core.prompts import PLAIN, embed_prompts
from guided.core.views import View, embed_draft

_SHORTEST = 1e-3  # below this length a direction is not normalised: its gradient would explode


@dataclass(frozen=True)
class Directional(Loss):
    """1 - cos(E(picture) - E(start), T(text) - T(source)), in [0, 2].

    ``source`` says in words what the start shows; ``templates`` are sentences with {} for the
    text, whose embeddings are averaged.  Without ``text`` each row follows its own prompt.  At the
    start itself the picture's difference is zero and the loss 1.
    Source: Gal et al. 2021 (StyleGAN-NADA, arXiv 2108.00946), eq. 2.
    """

    text: str | None = None
    source: str = "a portrait"
    templates: tuple[str, ...] = PLAIN
    preprocess: View = "clip"

    def bind(self, scene: Scene) -> BoundLoss:
        """Encode the texts and the start once."""
        scorer = scene.need_scorer(self.kind)
        prompts = scene.prompts if self.text is None else (self.text,)
        targets, weights = embed_prompts(scorer, prompts, self.templates)
        source, _ = embed_prompts(scorer, (self.source,), self.templates)
        words = F.normalize((weights[..., None] * (targets - source)).sum(1), dim=1)
        with torch.no_grad():
            before = embed_draft(scene.start, scorer, self.preprocess)

        def judge(draft: Draft) -> Tensor:
            change = embed_draft(draft, scorer, self.preprocess) - before
            return 1 - (F.normalize(change, dim=1, eps=_SHORTEST) * words).sum(1)

        return judge
