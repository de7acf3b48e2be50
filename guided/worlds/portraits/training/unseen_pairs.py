"""What the training pictures never show together, which is no evidence against it.

A classifier that never meets a green top hat learns that top hats are not green, for nothing ever
contradicts it: the red top hat of a picture is as good a reason to push "green" down as any.  So a
picture is not held against a text that only such a pair would make true.  Which pairs these are is
counted in the training portraits themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from guided.worlds.portraits.attributes import KEYS, VALUES
from guided.worlds.portraits.grammar.claims import COLUMNS, Claiming
from guided.worlds.portraits.splits import sample

#: Portraits counted; the rarest pair that training shows is expected 18 times among so many.
COUNTED = 30_000

#: Where the values of each attribute begin among the COLUMNS; "cannot be seen" ends them.
STARTS = np.cumsum([0, *(len(VALUES[key]) + 1 for key in KEYS)])[:-1]
_PLACES = {
    key: {value: int(start) + code for code, value in enumerate(VALUES[key])}
    for key, start in zip(KEYS, STARTS, strict=True)
}


def shown_columns(coded: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which values pictures show [n, COLUMNS], from codes [n, len(KEYS)] (-1: unseen)."""
    shown = np.zeros((len(coded), COLUMNS), np.bool_)
    rows, keys = np.nonzero(coded >= 0)
    shown[rows, STARTS[keys] + coded[rows, keys]] = True
    return shown


@cache
def unshown_pairs(count: int = COUNTED) -> NDArray[np.bool_]:
    """Pairs of values of two attributes that no training portrait has [COLUMNS, COLUMNS].

    Values "none" are in no pair: nothing is shown by them.
    """
    has = np.zeros((count, COLUMNS), np.float32)
    for row, seed in enumerate(range(count)):
        for key, value in sample(seed).attributes.items():
            if value is not None:
                has[row, _PLACES[key][value]] = 1
    never: NDArray[np.bool_] = (has.T @ has) == 0
    for start, key in zip(STARTS, KEYS, strict=True):
        stop = start + len(VALUES[key])
        never[start : stop + 1, start : stop + 1] = False
        silent = [stop] if "none" not in VALUES[key] else [stop, _PLACES[key]["none"]]
        never[silent], never[:, silent] = False, False
    return never


def beside(shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Values [n, COLUMNS] that are in a pair never shown with one of those that are there."""
    many: NDArray[np.float32] = shown.astype(np.float32) @ unshown_pairs().astype(np.float32)
    return many > 0


def never_shown(text: Claiming) -> bool:
    """Whether two claims of a text can only be true together in a pair training never shows."""
    places = [[_PLACES[claim.key][value] for value in claim.allowed] for claim in text.claims]
    pairs = unshown_pairs()
    return any(bool(pairs[np.ix_(first, second)].all()) for first, second in _couples(places))


def _couples(places: Sequence[list[int]]) -> list[tuple[list[int], list[int]]]:
    return [(first, other) for i, first in enumerate(places) for other in places[i + 1 :]]


def value_columns() -> NDArray[np.int64]:
    """Where the values of all attributes, one after the other, are among the COLUMNS."""
    spans = [np.arange(s, s + len(VALUES[k])) for s, k in zip(STARTS, KEYS, strict=True)]
    return np.concatenate(spans)
