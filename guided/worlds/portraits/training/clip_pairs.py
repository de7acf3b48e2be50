"""What batches of the drawn world know: codes, colours, near misses; pictures moved a little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from guided.training.objectives.clip import ClipBatch
from guided.worlds.portraits.attributes import COLOR_KEYS, KEYS, UNSEEN_WORDS, VALUES, Portrait
from guided.worlds.portraits.drawing.palette import PALETTES
from guided.worlds.portraits.grammar.captions import Caption
from guided.worlds.portraits.training.world_data import ABSENT

#: How often a window of the pool is gone through before the next one.
REPEATS = 2
COLOR_COLUMNS = np.array([KEYS.index(key) for key in COLOR_KEYS])
SHAPE_KEYS = tuple(key for key in KEYS if key not in COLOR_KEYS)
UNSEEN_CODES = [VALUES["sign"].index(word) for word in UNSEEN_WORDS]


@dataclass
class PairBatch(ClipBatch):
    """Pictures uint8 [B, 3, H, W], token ids [N, L] (B own captions, then near misses of the first
    N - B pictures), truth [B, N], attribute codes [B, K] (-1 where unseen), what each text forbids
    [N, COLUMNS], the noise seed, and what counts neither for nor against (``unshown``,
    ``color_truth``): pairs [B, N] and values of attributes, one after the other, [B, V].
    ``colors`` [B, 6, 3] are those of ``COLOR_KEYS`` as the picture shows them, in [0, 1], NaN where
    unknown; ``spoken`` [N, 6, 3] as the text says.
    """

    codes: Tensor
    forbidden: Tensor
    excused: Tensor
    unlikely: Tensor
    colors: Tensor
    spoken: Tensor


def shifted(pixels: Tensor, reach: int, draw: torch.Generator, groups: int = 16) -> Tensor:
    """Pictures uint8 [B, 3, H, W] moved by up to ``reach`` pixels, edges repeated.

    Neighbours in the batch move together in ``groups`` groups, which costs one pad and a few
    copies instead of one for each picture.
    """
    if reach == 0:
        return pixels
    height, width = pixels.shape[2:]
    padded = F.pad(pixels.float(), (reach,) * 4, mode="replicate").to(torch.uint8)
    moved = []
    for part in padded.chunk(groups):
        top, left = torch.randint(0, 2 * reach + 1, (2,), generator=draw).tolist()
        moved.append(part[:, :, top : top + height, left : left + width])
    return torch.cat(moved)


def person_of(coded: NDArray[np.uint8]) -> Portrait:
    """A portrait's attributes from its codes [13] in a pool; the geometry is left out."""
    return Portrait(
        {
            key: None if code == ABSENT else VALUES[key][code]
            for key, code in zip(KEYS, coded.tolist(), strict=True)
        },
        {},
    )


def renamed(person: Portrait, coded: NDArray[np.int16]) -> Portrait:
    """A portrait with the names [K] its colours have now; those that are unsure (-1) stay."""
    attributes = dict(person.attributes)
    for key, column in zip(COLOR_KEYS, COLOR_COLUMNS, strict=True):
        if coded[column] >= 0:
            attributes[key] = VALUES[key][coded[column]]
    return Portrait(attributes, person.geometry)


def speakable(coded: NDArray[np.int16]) -> tuple[str, ...]:
    """What a caption may speak of: shapes, and colours with a sure name."""
    return tuple(k for k, code in zip(KEYS, coded, strict=True) if k in SHAPE_KEYS or code >= 0)


def palette_colors(coded: NDArray[np.int16]) -> Tensor:
    """Colours [n, 6, 3] in [0, 1] of ``COLOR_KEYS``, NaN where unseen, from codes [n, K]."""
    found = np.full((len(coded), len(COLOR_KEYS), 3), np.nan, np.float32)
    for place, (key, column) in enumerate(zip(COLOR_KEYS, COLOR_COLUMNS, strict=True)):
        table = np.array([PALETTES[key][value] for value in VALUES[key]], np.float32) / 255
        seen = coded[:, column] >= 0
        found[seen, place] = table[coded[seen, column]]
    return torch.from_numpy(found)


def spoken_colors(texts: Sequence[Caption]) -> Tensor:
    """Colours [n, 6, 3] in [0, 1] of ``COLOR_KEYS`` that texts name, NaN where they name none."""
    found = np.full((len(texts), len(COLOR_KEYS), 3), np.nan, np.float32)
    for row, said in enumerate(texts):
        for claim in said.claims:
            if claim.key in COLOR_KEYS and len(claim.allowed) == 1:
                color = PALETTES[claim.key][next(iter(claim.allowed))]
                found[row, COLOR_KEYS.index(claim.key)] = np.array(color, np.float32) / 255
    return torch.from_numpy(found)
