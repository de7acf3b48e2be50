"""What a caption claims, and which claims are true of which portraits, one by one or by matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from guided.worlds.portraits.attributes import KEYS, VALUES, Portrait, visible

#: Columns of a claim table: each value of each attribute, then "cannot be seen", key after key.
_OFFSETS = np.cumsum([0, *(len(VALUES[key]) + 1 for key in KEYS)])
COLUMNS = int(_OFFSETS[-1])
_CODES = {key: {value: code for code, value in enumerate(VALUES[key])} for key in KEYS}


@dataclass(frozen=True)
class Claim:
    """One attribute said to be among some values, such as glasses in {round, square}."""

    key: str
    allowed: frozenset[str]


class Claiming(Protocol):
    """Anything with claims that must all hold: a caption, a paraphrase."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What is said, attribute by attribute."""
        ...


def all_true(claims: Sequence[Claim], attributes: Mapping[str, str | None]) -> bool:
    """Whether every claim is true of a person and can be seen in the picture."""
    seen = visible(attributes)
    return all(attributes[c.key] in c.allowed and seen[c.key] for c in claims)


def codes(portraits: Sequence[Portrait]) -> NDArray[np.int16]:
    """Attributes as integers [n, len(KEYS)]: the value's place in ``VALUES[key]``, -1 if unseen.

    Unseen are the colour of no hat, hair colour of the bald, eyes behind dark lenses and so on
    (``attributes.visible``).
    """
    table = np.full((len(portraits), len(KEYS)), -1, dtype=np.int16)
    for row, portrait in enumerate(portraits):
        attributes, seen = portrait.attributes, portrait.visible()
        for column, key in enumerate(KEYS):
            value = attributes[key]
            if value is not None and seen[key]:
                table[row, column] = _CODES[key][value]
    return table


@cache
def _forbidden(claim: Claim) -> NDArray[np.bool_]:
    """The columns [COLUMNS] that make a claim false, "cannot be seen" among them."""
    row = np.zeros(COLUMNS, dtype=np.bool_)
    column = KEYS.index(claim.key)
    row[_OFFSETS[column] : _OFFSETS[column + 1]] = True
    for value in claim.allowed:
        row[_OFFSETS[column] + _CODES[claim.key][value]] = False
    return row


@dataclass(frozen=True)
class ClaimTable:
    """The claims of many captions, ready to be checked against many portraits at once.

    ``forbidden`` [n_captions, COLUMNS] holds 1 where a visible value (or "cannot be seen") makes
    the caption false. Build it once for a data set and take the rows of each batch.
    """

    forbidden: NDArray[np.bool_]

    @classmethod
    def of(cls, captions: Sequence[Claiming]) -> ClaimTable:
        """The table of these captions, in their order."""
        forbidden = np.zeros((len(captions), COLUMNS), dtype=np.bool_)
        for row, caption in zip(forbidden, captions, strict=True):
            for claim in caption.claims:
                row |= _forbidden(claim)
        return cls(forbidden)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> ClaimTable:
        """The table of some of the captions."""
        return ClaimTable(self.forbidden[np.asarray(rows, dtype=np.int64)])

    def matrix(self, coded: NDArray[np.int16]) -> NDArray[np.bool_]:
        """Which captions are true of which portraits [n_portraits, n_captions].

        ``coded`` [n_portraits, len(KEYS)] comes from ``codes``.

        Raises:
            ValueError: ``coded`` has another width.
        """
        if coded.ndim != 2 or coded.shape[1] != len(KEYS):
            raise ValueError(f"codes have shape [n, {len(KEYS)}], not {list(coded.shape)}")
        unseen = np.array([len(VALUES[key]) for key in KEYS])
        columns = np.where(coded < 0, unseen, coded) + _OFFSETS[:-1]
        ruled_out = np.ascontiguousarray(self.forbidden.T)
        wrong = np.zeros((len(coded), ruled_out.shape[1]), dtype=np.bool_)
        for column in columns.T:  # rows are copied whole, so this beats a product of matrices
            wrong |= ruled_out[column]
        return ~wrong


def claims_matrix(captions: Sequence[Claiming], portraits: Sequence[Portrait]) -> NDArray[np.bool_]:
    """Which captions are true of which portraits [n_portraits, n_captions]."""
    return ClaimTable.of(captions).matrix(codes(portraits))
