"""CLIP similarity to images: one minus the cosine to each picture of a prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality
from guided.core.views import View, embed_candidate
from guided.errors import CannotDo, UsageError


@dataclass(frozen=True)
class ImagePrompt(Loss):
    """sum_i w_i (1 - cos(picture, prompt_i)) / sum_i |w_i|, in [-2, 2].

    The prompts are the context's ``image_prompts``, pictures [1, 3, H, W] in [0, 1] of any sizes
    that hold for all rows; ``weights`` are their w_i, 1 where none are given, negative to move
    away.  ``preprocess`` is how the CLIP sees the image.
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ("scorer",)

    weights: tuple[float, ...] = ()
    preprocess: View = "clip"

    def bind(self, context: LossContext) -> BoundLoss:
        """Embed the prompts once.

        Raises:
            CannotDo: the context has no such pictures.
            UsageError: another number of weights than pictures, or one that is 0 or not finite.
        """
        scorer = context.need_scorer(self.kind)
        pictures = list(context.extras.get("image_prompts", ()))
        if not pictures:
            raise CannotDo(
                f"The loss {self.kind!r} needs pictures to follow.", hint="Give image prompts."
            )
        given = self.weights or (1.0,) * len(pictures)
        if len(given) != len(pictures):
            raise UsageError(f"{len(given)} weights were given for {len(pictures)} pictures.")
        if any(weight == 0 or not math.isfinite(weight) for weight in given):
            raise UsageError(f"Weights must be numbers other than 0, not {list(given)}.")
        with torch.no_grad():
            wanted = torch.cat([scorer.embed_images(picture) for picture in pictures])
        weights = wanted.new_tensor(given)
        weights = weights / weights.abs().sum()

        def loss(candidate: Candidate) -> Tensor:
            seen = embed_candidate(candidate, scorer, self.preprocess)
            return (weights * (1 - seen @ wanted.T)).sum(1)

        return loss
