"""How good captions of portraits are, by truth and grammar: never by what was optimised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from guided.judging.caption_parser import Reading, read_caption
from guided.portraits.attributes import KEYS, VALUES, Portrait
from guided.portraits.claims import all_true


@dataclass(frozen=True)
class CaptionFigures:
    """Shares over many captions.

    ``precision``: claims that are true of the portrait and can be seen in it, of all claims.
    ``recall``: attributes truly claimed, of all that are present (not "none") and visible.
    ``mentioned``: attributes a caption speaks of, on average.  ``families``: for each attribute
    the share of captions that speak of it.
    """

    precision: float
    recall: float
    mentioned: float
    families: dict[str, float]

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def caption_figures(texts: Sequence[str], people: Sequence[Portrait]) -> CaptionFigures:
    """The figures of one caption for each portrait.

    Raises:
        ValueError: no caption, or not one for each portrait.
    """
    if not texts or len(texts) != len(people):
        raise ValueError(f"{len(people)} portraits need as many captions, not {len(texts)}")
    readings = [read_caption(text) for text in texts]
    right = claimed = found = present = 0
    for reading, person in zip(readings, people, strict=True):
        truths = [claim for claim in reading.claims if all_true((claim,), person.attributes)]
        there = _present(person)
        right, claimed = right + len(truths), claimed + len(reading.claims)
        found += len({claim.key for claim in truths} & there)
        present += len(there)
    families = {
        key: sum(key in reading.keys for reading in readings) / len(readings) for key in KEYS
    }
    return CaptionFigures(
        precision=right / claimed if claimed else 0.0,
        recall=found / present if present else 0.0,
        mentioned=sum(len(reading.keys) for reading in readings) / len(readings),
        families=families,
    )


def _present(person: Portrait) -> set[str]:
    seen = person.visible()
    return {key for key in KEYS if seen[key] and person.attributes[key] != "none"}


def prior_distances(readings: Sequence[Reading]) -> dict[str, float]:
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
