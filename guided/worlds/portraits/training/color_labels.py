"""What colours may be called, and which texts are then true, false, or neither.

A picture in other colours still has colours: some are plainly one of the palette's, most lie
between.  A text is held against such a picture only where no name that its colour may have is
among those the text allows, and for it only where all are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from guided.worlds.portraits.attributes import COLOR_KEYS, KEYS, VALUES
from guided.worlds.portraits.drawing.palette import PALETTES
from guided.worlds.portraits.training.unseen_pairs import STARTS, beside, shown_columns

_COLORED = np.concatenate([np.full(len(VALUES[key]) + 1, key in COLOR_KEYS) for key in KEYS])
#: Distances in the cube of sRGB with sides of 1.  Closer than NEAR to one name and that much
#: closer than to any other: that name.  Otherwise it may be any name within FAR, or nearly as
#: close as the closest.
NEAR, FAR, MARGIN = 0.13, 0.30, 0.12


class Named(NamedTuple):
    """Codes [n, K] of attributes, -1 where unseen or unsure; the values [n, COLUMNS] each may have
    ("cannot be seen" is one of them); values [n, COLUMNS] that would make a pair never shown."""

    codes: NDArray[np.int16]
    possible: NDArray[np.bool_]
    excused: NDArray[np.bool_]


def names_of(colors: NDArray[np.float32], key: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which names [n, V] of an attribute colours [n, 3] in [0, 1] may have (at least one each), and
    which of the colours [n] are that for sure."""
    table = np.array([PALETTES[key][value] for value in VALUES[key]], np.float32) / 255
    apart = np.linalg.norm(colors[:, None] - table[None], axis=2)
    order = np.sort(apart, 1)
    least = order[:, :1]
    plain = (least < NEAR) & (order[:, 1:2] > least + MARGIN)
    found: NDArray[np.bool_] = np.where(
        plain, apart == least, (apart < FAR) | (apart <= least + MARGIN)
    )
    return found, plain[:, 0]


def named(
    coded: NDArray[np.int16], colors: Tensor, changed: NDArray[np.bool_], *, excuse: bool
) -> Named:
    """What pictures may be called whose colours [n, 6, 3] of ``COLOR_KEYS`` are other ones.

    ``coded`` [n, K] are the portraits' own codes; rows where ``changed`` [n] is set are in other
    colours.  With ``excuse`` a name that would make a pair never shown is nobody's for sure.
    """
    found = coded.copy()
    possible = shown_columns(coded)
    for column, key in enumerate(KEYS):
        possible[:, STARTS[column] + len(VALUES[key])] = coded[:, column] < 0
    for place, key in enumerate(COLOR_KEYS):
        column = KEYS.index(key)
        rows = np.flatnonzero(changed & (coded[:, column] >= 0))
        if len(rows) == 0:
            continue
        names, sure = names_of(colors[rows, place].numpy(), key)
        span = slice(STARTS[column], STARTS[column] + len(VALUES[key]))
        possible[rows, span] = names
        found[rows, column] = np.where(sure, names.argmax(1), -1)
    if not excuse:
        return Named(found, possible, np.zeros_like(possible))
    # Of new names that would make such a pair none is for sure: neither the one nor the other.
    shown = shown_columns(found)
    strange = shown & beside(shown) & changed[:, None] & _COLORED
    for column in (KEYS.index(key) for key in COLOR_KEYS):
        span = slice(STARTS[column], STARTS[column] + len(VALUES[KEYS[column]]))
        found[strange[:, span].any(1), column] = -1
    shown = shown_columns(found)
    return Named(found, possible, (beside(shown) & ~shown) | strange)


def judged(pictures: Named, forbidden: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Which texts are true of which pictures, and of which neither true nor false: two [n, m].

    ``forbidden`` [m, COLUMNS] is that of a ``ClaimTable``.
    """
    shape = (len(pictures.codes), len(forbidden))
    false: NDArray[np.bool_] = np.zeros(shape, np.bool_)
    unsure: NDArray[np.bool_] = np.zeros(shape, np.bool_)
    for column, key in enumerate(KEYS):
        span = slice(STARTS[column], STARTS[column] + len(VALUES[key]) + 1)
        may, barred = pictures.possible[:, span].astype(np.float32), forbidden[:, span]
        hits, names = may @ barred.T.astype(np.float32), may.sum(1, keepdims=True)
        said = barred.any(axis=1, keepdims=True).T
        wrong = (hits == names) & said
        beyond = pictures.excused[:, span].astype(np.float32)
        open_to = beyond @ (~barred).T.astype(np.float32) > 0
        strange = (may * beyond) @ (~barred).T.astype(np.float32) > 0
        false |= wrong & ~open_to
        unsure |= (wrong & open_to) | ((hits > 0) & ~wrong) | (strange & said)
    return ~false & ~unsure, ~false & unsure
