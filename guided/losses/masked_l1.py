"""Masked L1 distance: the mean absolute change outside a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guided.core.objective import BoundLoss, Candidate, Loss, LossContext, Modality
from guided.core.targets import target_image
from guided.errors import ShapeError


@dataclass(frozen=True)
class MaskedL1(Loss):
    """Mean |picture - target| where the context's ``mask`` is 0, per colour and pixel, in [0, 1].

    The mask [1 or B, 1, H, W] is 1 where the picture may change; without one every pixel counts.
    The target is the context's ``target`` picture, or else the start.
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ()

    def bind(self, context: LossContext) -> BoundLoss:
        """Keep the target and the weight of each pixel.

        Raises:
            ShapeError: a mask of another size than the pictures.
        """
        target = target_image(context)
        mask = context.extras.get("mask")
        keep = target.new_ones(1, 1, *target.shape[2:]) if mask is None else 1 - mask.to(target)
        if keep.ndim != 4 or keep.shape[2:] != target.shape[2:] or keep.shape[1] != 1:
            raise ShapeError(
                f"The mask is {list(keep.shape)}, but the pictures are "
                f"{target.shape[3]} x {target.shape[2]} pixels: it must be [B, 1, H, W] of that.",
                hint="Give a mask of the picture's own size.",
            )
        area = keep.flatten(1).sum(1).clamp(min=1) * target.shape[1]

        def loss(candidate: Candidate) -> Tensor:
            change = (candidate.image - target).abs() * keep
            return change.flatten(1).sum(1) / area

        return loss
