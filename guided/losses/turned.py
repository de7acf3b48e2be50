"""The picture turns where the words point and stays itself otherwise, as CLIP sees both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import BoundLoss, Draft, Loss, Scene
from guided.core.prompts import parse
from guided.core.views import View, embed_draft
from guided.errors import CannotDo, UsageError


@dataclass(frozen=True)
class Turned(Loss):
    """1 - cos(E(picture), E(start) + amount * d), in [0, 2].

    d [D] is a prompt's unit direction for the start (the sum over its texts, by their weights);
    ``amount`` is how far to go along it, in lengths of embeddings.  What the words do not speak of
    stays in the target, so other changes cost as much as the wanted one is worth: that is what
    ``Clip``, which sees the words alone, and ``Directional``, which sees no length, leave open.
    The scene's extra ``towards`` gives the unit directions [B, D] of a text for pictures with unit
    embeddings [B, D].
    Source: the differences are those of Lyu et al. 2023 (DeltaEdit, arXiv 2303.06285).
    """

    amount: float = 0.6
    preprocess: View = "clip"

    def bind(self, scene: Scene) -> BoundLoss:
        """Find each row's target once.

        Raises:
            CannotDo: a scene without directions.
            UsageError: an amount that is not positive.
        """
        scorer = scene.need_scorer(self.kind)
        towards: Callable[[str, Tensor], Tensor] | None = scene.extras.get("towards")
        if towards is None:
            raise CannotDo(
                f"The loss {self.kind!r} needs directions of texts for pictures.",
                hint="guided edit --method refine gives them.",
            )
        if not self.amount > 0:
            raise UsageError(f"The loss {self.kind!r} goes an amount above 0, not {self.amount}.")
        with torch.no_grad():
            before = embed_draft(scene.start, scorer, self.preprocess)
            wanted = F.normalize(before + self.amount * _directions(scene, towards, before), dim=1)

        def judge(draft: Draft) -> Tensor:
            return 1 - (embed_draft(draft, scorer, self.preprocess) * wanted).sum(1)

        return judge


def _directions(scene: Scene, towards: Callable[[str, Tensor], Tensor], seen: Tensor) -> Tensor:
    """Unit directions [B, D] of the scene's prompts, one for each row or one for all."""
    prompts: tuple[Any, ...] = scene.prompts * (len(seen) if len(scene.prompts) == 1 else 1)
    parts = [parse(prompt) for prompt in prompts]
    known = {text: towards(text, seen) for text in dict.fromkeys(t for p in parts for t, _ in p)}
    rows = [
        torch.stack([weight * known[text][row] for text, weight in each]).sum(0)
        for row, each in enumerate(parts)
    ]
    return F.normalize(torch.stack(rows).to(seen), dim=1)
