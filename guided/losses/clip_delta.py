"""CLIP delta: the image's embedding moves along the text's direction and keeps all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality
from guided.core.prompts import parse
from guided.core.views import View, embed_candidate
from guided.errors import CannotDo, UsageError


@dataclass(frozen=True)
class ClipDelta(Loss):
    """1 - cos(E(picture), E(start) + amount * d), in [0, 2].

    d [D] is a prompt's unit direction for the start (the sum over its texts, by their weights);
    ``amount`` is how far to go along it, in lengths of embeddings.  What the words do not speak of
    stays in the target, so other changes cost as much as the wanted one is worth: that is what
    ``Clip``, which sees the words alone, and ``Directional``, which sees no length, leave open.
    ``preprocess`` is how the CLIP sees the image.
    The context's extra ``towards`` gives the unit directions [B, D] of a text for pictures with
    unit embeddings [B, D].
    Source: the differences are those of Lyu et al. 2023 (DeltaEdit, arXiv 2303.06285).
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ("scorer",)

    amount: float = 0.6
    preprocess: View = "clip"

    def bind(self, context: LossContext) -> BoundLoss:
        """Find each row's target once.

        Raises:
            CannotDo: a context without directions.
            UsageError: an amount that is not positive.
        """
        scorer = context.need_scorer(self.kind)
        towards: Callable[[str, Tensor], Tensor] | None = context.extras.get("towards")
        if towards is None:
            raise CannotDo(
                f"The loss {self.kind!r} needs directions of texts for pictures.",
                hint="guided edit --method refine gives them.",
            )
        if not self.amount > 0:
            raise UsageError(f"The loss {self.kind!r} goes an amount above 0, not {self.amount}.")
        with torch.no_grad():
            before = embed_candidate(context.start, scorer, self.preprocess)
            wanted = F.normalize(
                before + self.amount * _directions(context, towards, before), dim=1
            )

        def loss(candidate: Candidate) -> Tensor:
            return 1 - (embed_candidate(candidate, scorer, self.preprocess) * wanted).sum(1)

        return loss


def _directions(
    context: LossContext, towards: Callable[[str, Tensor], Tensor], seen: Tensor
) -> Tensor:
    """Unit directions [B, D] of the context's prompts, one for each row or one for all."""
    prompts: tuple[Any, ...] = context.prompts * (len(seen) if len(context.prompts) == 1 else 1)
    parts = [parse(prompt) for prompt in prompts]
    known = {text: towards(text, seen) for text in dict.fromkeys(t for p in parts for t, _ in p)}
    rows = [
        torch.stack([weight * known[text][row] for text, weight in each]).sum(0)
        for row, each in enumerate(parts)
    ]
    return F.normalize(torch.stack(rows).to(seen), dim=1)
