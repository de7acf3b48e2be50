"""What pixel losses compare with: a given target picture, or the picture a loop began with."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.core.objective import LossContext
from guided.errors import ShapeError


def target_image(context: LossContext) -> Tensor:
    """The context's ``target`` [B, 3, H, W] in [0, 1] if it has one, else the start's picture.

    Raises:
        ShapeError: a target of another size than the pictures the loop draws.
    """
    with torch.no_grad():
        start = context.start.image.detach()
    given = context.extras.get("target")
    if given is None:
        return start
    target: Tensor = given.to(start)
    if target.shape[1:] != start.shape[1:] or target.shape[0] not in (1, start.shape[0]):
        raise ShapeError(
            f"The target is {list(target.shape)}, but the pictures are {list(start.shape)}.",
            hint="Resize it to the generator's size.",
        )
    return target
