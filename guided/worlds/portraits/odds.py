"""How often things are seen in the training split, for questions whose answers must balance.

Attributes are drawn apart from each other, but portraits with a held-out pair are left out, so the
shares that remain are counted in a large draw: the same one each time, made when first needed.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from guided.worlds.portraits.attributes import KEYS, VALUES, chances, visible
from guided.worlds.portraits.splits import HELD_OUT_PAIRS

#: Things a person may have or not have.
THINGS = ("glasses", "hat", "earrings", "beard", "sign")
_DRAWS = 100_000
_DECIDING = ("hair_style", "hat", "glasses")  # what is visible follows from these alone

Column = NDArray[np.int64]


@cache
def _crowd() -> dict[str, Column]:
    """Codes of many people of the training split, key by key: -1 where something is not seen."""
    rng = np.random.default_rng(0)
    people: dict[str, Column] = {
        key: rng.choice(len(VALUES[key]), size=_DRAWS, p=chances(key)) for key in KEYS
    }
    clash = people["hat_color"] == people["clothing"]
    moved = people["hat_color"] + rng.integers(1, len(VALUES["hat_color"]), size=_DRAWS)
    people["hat_color"] = np.where(clash, moved % len(VALUES["hat_color"]), people["hat_color"])
    people["hat_color"][people["hat"] == VALUES["hat"].index("none")] = -1
    kept = np.ones(_DRAWS, dtype=np.bool_)
    for (key, value), (other, also) in HELD_OUT_PAIRS:
        kept &= (people[key] != VALUES[key].index(value)) | (
            people[other] != VALUES[other].index(also)
        )
    people = {key: column[kept] for key, column in people.items()}
    place = tuple(people[key] for key in _DECIDING)
    return {k: np.where(table[place], people[k], -1) for k, table in _visibility().items()}


def _visibility() -> dict[str, NDArray[np.bool_]]:
    """For each key, whether it is seen: a table over the deciding attributes' codes."""
    tables = {
        key: np.zeros([len(VALUES[deciding]) for deciding in _DECIDING], dtype=np.bool_)
        for key in KEYS
    }
    attributes: dict[str, str | None] = {key: VALUES[key][0] for key in KEYS}
    for place in product(*(range(len(VALUES[key])) for key in _DECIDING)):
        attributes |= {k: VALUES[k][code] for k, code in zip(_DECIDING, place, strict=True)}
        for key, seen in visible(attributes).items():
            tables[key][place] = seen
    return tables


@cache
def value_odds(key: str) -> dict[str, float]:
    """The share of each value among the people in whom the attribute is seen."""
    codes = _crowd()[key]
    counts = np.bincount(codes[codes >= 0], minlength=len(VALUES[key]))
    return dict(zip(VALUES[key], (counts / counts.sum()).tolist(), strict=True))


@cache
def some_odds(key: str) -> dict[str, float]:
    """The share of each value but "none", up to a factor."""
    return {value: share for value, share in value_odds(key).items() if value != "none"}


@cache
def presence_odds(keys: tuple[str, ...]) -> dict[tuple[bool, ...], float]:
    """The share of each way in which some of the ``THINGS`` are there or not."""
    people = _crowd()
    there = np.stack([people[key] != VALUES[key].index("none") for key in keys])
    ways = product((False, True), repeat=len(keys))
    return {way: float((there == np.array(way)[:, None]).all(0).mean()) for way in ways}


@cache
def same_odds(one: str, other: str) -> float:
    """The share of equal values of two colors among people in whom both are seen."""
    people = _crowd()
    seen = (people[one] >= 0) & (people[other] >= 0)
    names = [np.array(VALUES[key]) for key in (one, other)]
    equal = names[0][people[one][seen]] == names[1][people[other][seen]]
    return float(equal.mean())
