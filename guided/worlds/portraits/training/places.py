"""Where in a picture an attribute of a drawn portrait is seen, measured from drawings."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.worlds.portraits.attributes import VALUES
from guided.worlds.portraits.drawing.raster import draw
from guided.worlds.portraits.splits import sample

#: World seed of the people who are drawn twice, far from those of every published figure.
_FIRST = 6_300_000


def place_of(key: str, cells: int, *, size: int = 128, people: int = 24) -> Tensor:
    """How much of what ``key`` changes lies in each of ``cells`` x ``cells`` parts, in [0, 1].

    ``people`` new portraits of ``size`` pixels are drawn twice each, with two values of the
    attribute that both show it (not "none"); what differs is averaged, and the part where most
    does counts 1.

    Raises:
        ValueError: ``size`` is not a multiple of ``cells``.
    """
    if size % cells:
        raise ValueError(f"{size} pixels do not make {cells} equal parts; give a divisor of {size}")
    shown = [value for value in VALUES[key] if value != "none"]
    changed = torch.zeros(1, 1, size, size)
    for number in range(people):
        person, stream = sample(_FIRST + number, "val"), np.random.default_rng(number)
        first, second = (shown[i] for i in stream.choice(len(shown), 2, replace=False))
        both = to_tensor([draw(person.with_attribute(key, v), size) for v in (first, second)])
        changed += (both[0] - both[1]).abs().mean(0)
    parts = F.avg_pool2d(changed, size // cells)[0, 0]
    most = float(parts.max())
    return parts / most if most > 0 else parts
