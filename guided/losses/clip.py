"""Agreement of a picture with words: one minus the CLIP cosine."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guided.core.objective import BoundLoss, Draft, Loss, Scene
from guided.core.prompts import embed_prompts
from guided.core.views import View, embed_draft


@dataclass(frozen=True)
class Clip(Loss):
    """1 - cos(picture, text), in [0, 2].

    Without ``text`` each row follows its own prompt in the scene; a text given here is for all
    rows.  A prompt may hold several weighted texts ("purple hair | a hat::-0.3"): the loss is the
    weighted mean sum_i w_i (1 - cos_i) / sum_i |w_i|.
    Source: Patashnik et al. 2021 (StyleCLIP), eq. 1.
    """

    text: str | None = None
    preprocess: View = "clip"

    def bind(self, scene: Scene) -> BoundLoss:
        """Encode the prompts once."""
        scorer = scene.need_scorer(self.kind)
        prompts = scene.prompts if self.text is None else (self.text,)
        texts, weights = embed_prompts(scorer, prompts)

        def judge(draft: Draft) -> Tensor:
            seen = embed_draft(draft, scorer, self.preprocess)
            cosines = (seen[:, None] * texts).sum(2)
            return (weights * (1 - cosines)).sum(1)

        return judge
