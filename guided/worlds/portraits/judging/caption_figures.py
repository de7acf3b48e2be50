"""How good captions of portraits are, by truth and grammar: never by what was optimised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guided.worlds.portraits.attributes import KEYS, VALUES, Portrait
from guided.worlds.portraits.grammar.claims import all_true
from guided.worlds.portraits.judging.caption_parser import ParsedCaption, read_caption

#: How often portraits are drawn anew for an interval.
REDRAWN = 1000


@dataclass(frozen=True)
class CaptionFigures:
    """Shares over many captions.

    ``precision``: claims that are true of the portrait and can be seen in it, of all claims.
    ``recall``: attributes truly claimed, of all that are present (not "none") and visible.
    ``f1``: their harmonic mean.  ``mentioned``: attributes a caption speaks of, on average.
    ``families``: for each attribute the share of captions that speak of it.  ``intervals``: 95 %
    intervals of the first four by name, from portraits drawn anew with repetition.
    """

    precision: float
    recall: float
    f1: float
    mentioned: float
    families: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def caption_figures(texts: Sequence[str], people: Sequence[Portrait]) -> CaptionFigures:
    """The figures of one caption for each portrait.

    Raises:
        ValueError: no caption, or not one for each portrait.
    """
    if not texts or len(texts) != len(people):
        raise ValueError(f"{len(people)} portraits need as many captions, not {len(texts)}")
    readings = [read_caption(text) for text in texts]
    table = np.array(
        [_counted(reading, person) for reading, person in zip(readings, people, strict=True)]
    )
    whole = _shares(table.sum(axis=0, keepdims=True))
    rows = np.random.default_rng(len(table)).integers(len(table), size=(REDRAWN, len(table)))
    redrawn = _shares(table[rows].sum(axis=1))
    return CaptionFigures(
        **{name: float(values[0]) for name, values in whole.items()},
        families={
            key: sum(key in reading.keys for reading in readings) / len(readings) for key in KEYS
        },
        intervals={name: _middle(values) for name, values in redrawn.items()},
    )


def _counted(reading: ParsedCaption, person: Portrait) -> tuple[int, int, int, int, int, int]:
    """True claims, claims, present attributes truly claimed, present ones, mentioned ones, one."""
    truths = [claim for claim in reading.claims if all_true((claim,), person.attributes)]
    there = _present(person)
    found = len({claim.key for claim in truths} & there)
    return len(truths), len(reading.claims), found, len(there), len(reading.keys), 1


def _shares(sums: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall, f1 and mean of mentioned attributes of rows of summed counts [n, 6]."""
    right, claimed, found, present, mentioned, count = sums.T
    precision = right / np.maximum(claimed, 1)
    recall = found / np.maximum(present, 1)
    both = precision + recall
    f1 = 2 * precision * recall / np.where(both > 0, both, 1)
    return {"precision": precision, "recall": recall, "f1": f1, "mentioned": mentioned / count}


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _present(person: Portrait) -> set[str]:
    seen = person.visible()
    return {key for key in KEYS if seen[key] and person.attributes[key] != "none"}


def prior_distances(readings: Sequence[ParsedCaption]) -> dict[str, float]:
    """For each attribute the total variation between the values said of it and the uniform prior.

    Counted are claims of exactly one value that is not "none": absent things are said by rule and
    not by chance.  0 is uniform; 1 - 1/n is always the same of n values.  A key of which nothing
    is said has distance 1.
    """
    said: dict[str, Counter[str]] = {key: Counter() for key in KEYS}
    for reading in readings:
        for claim in reading.claims:
            if len(claim.allowed) == 1 and "none" not in claim.allowed:
                said[claim.key].update(claim.allowed)
    distances = {}
    for key, counts in said.items():
        values = [value for value in VALUES[key] if value != "none"]
        total = sum(counts.values())
        distances[key] = (
            0.5 * sum(abs(counts[value] / total - 1 / len(values)) for value in values)
            if total
            else 1.0
        )
    return distances


def repeated(texts: Sequence[str]) -> float:
    """The share of texts that came before."""
    return 1 - len(set(texts)) / len(texts) if texts else 0.0
