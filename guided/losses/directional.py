"""The picture moves as the words do: one minus the cosine of two CLIP differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import BoundLoss, Draft, Loss, Scene
from guided.core.prompts import PLAIN, text_direction
from guided.core.views import View, embed_draft
from guided.errors import CannotDo

_SHORTEST = 1e-3  # below this length a direction is not normalised: its gradient would explode


@dataclass(frozen=True)
class Directional(Loss):
    """1 - cos(E(picture) - E(start), T(text) - T(source)), in [0, 2].

    ``source`` says in words what the start shows; ``templates`` are sentences with {} for the
    text, whose embeddings are averaged.  Without ``text`` each row follows its own prompt, and
    without ``source`` it leaves its own words: the scene's extra ``sources``.  At the start itself
    the picture's difference is zero and the loss 1.
    Source: Gal et al. 2021 (StyleGAN-NADA, arXiv 2108.00946), eq. 2.
    """

    text: str | None = None
    source: str | None = "a portrait"
    templates: tuple[str, ...] = PLAIN
    preprocess: View = "clip"

    def bind(self, scene: Scene) -> BoundLoss:
        """Encode the texts and the start once.

        Raises:
            CannotDo: neither ``source`` nor the scene says what the start shows.
        """
        scorer = scene.need_scorer(self.kind)
        prompts = scene.prompts if self.text is None else (self.text,)
        words = text_direction(scorer, prompts, self._sources(scene), self.templates)
        with torch.no_grad():
            before = embed_draft(scene.start, scorer, self.preprocess)

        def judge(draft: Draft) -> Tensor:
            change = embed_draft(draft, scorer, self.preprocess) - before
            return 1 - (F.normalize(change, dim=1, eps=_SHORTEST) * words).sum(1)

        return judge

    def _sources(self, scene: Scene) -> Sequence[str]:
        if self.source is not None:
            return (self.source,)
        if "sources" not in scene.extras:
            raise CannotDo(
                f"The loss {self.kind!r} is not told what the picture shows.",
                hint="Give its key source, such as 'a portrait'.",
            )
        own: Sequence[str] = scene.extras["sources"]
        return own
