"""Puzzles about captions with known answers: signs to read, and sums of pictures to name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as numbers

import numpy as np

from guided.worlds.portraits.attributes import UNSEEN_WORDS, VALUES, Portrait
from guided.worlds.portraits.judging.caption_parser import read_caption
from guided.worlds.portraits.splits import Split, held_out_pairs_of, sample

#: Attributes a sum can carry from one person to another and a picture shows at once.
CARRIED = ("hair_color", "hair_style", "skin", "expression", "glasses", "hat", "beard", "earrings",
           "background", "clothing")  # fmt: skip


@dataclass(frozen=True)
class SumPuzzle:
    """Two pictures of one person that differ in one value, and another person without it.

    (``having`` - ``lacking`` + ``other``) should be described as having ``value`` of ``key``.
    """

    key: str
    value: str
    having: Portrait
    lacking: Portrait
    other: Portrait

    def named_by(self, text: str) -> bool:
        """Whether a caption says the value: nothing that the other person's own value fits."""
        old = self.other.attributes[self.key]
        return any(
            claim.key == self.key and self.value in claim.allowed and old not in claim.allowed
            for claim in read_caption(text).claims
        )


def sum_puzzles(count: int, first: int) -> list[SumPuzzle]:
    """Puzzles of new people over all of ``CARRIED`` in turn, of world seeds from ``first`` on.

    The value is never "none" or a bald head, can be seen in both pictures that should show it, and
    neither the pictures nor the answer show a pair of values that training leaves out.
    """
    rng = np.random.default_rng([first, 23])
    found: list[SumPuzzle] = []
    seeds = iter(numbers(first))
    while len(found) < count:
        key = CARRIED[len(found) % len(CARRIED)]
        puzzle = _puzzle(key, sample(next(seeds), "val"), sample(next(seeds), "val"), rng)
        if puzzle is not None:
            found.append(puzzle)
    return found


def _puzzle(
    key: str, person: Portrait, other: Portrait, rng: np.random.Generator
) -> SumPuzzle | None:
    """A puzzle about two people, or None where the drawn values cannot be seen."""
    values = [value for value in VALUES[key] if value not in ("none", "bald")]
    value = values[int(rng.integers(len(values)))]
    rest = [v for v in VALUES[key] if v not in (value, "bald")]
    plain = "none" if "none" in rest else rest[int(rng.integers(len(rest)))]
    having, lacking = person.with_attribute(key, value), person.with_attribute(key, plain)
    if other.attributes[key] == value:
        other = other.with_attribute(key, plain)
    answer = other.with_attribute(key, value)
    shown = all(one.visible()[key] for one in (having, lacking, answer))
    known = not any(held_out_pairs_of(p.attributes) for p in (having, lacking, other, answer))
    return SumPuzzle(key, value, having, lacking, other) if shown and known else None


def sign_people(count: int, first: int, *, unseen: bool, split: Split = "val") -> list[Portrait]:
    """People with a word on the shirt, of world seeds from ``first`` on.

    ``unseen`` words are those no training of a CLIP shows.
    """
    return list(_people(count, first, split, unseen=unseen))


def _people(count: int, first: int, split: Split, *, unseen: bool) -> Iterator[Portrait]:
    kept = 0
    for seed in numbers(first):
        if kept == count:
            return
        person = sample(seed, split)
        if person.attributes["sign"] != "none" and _unseen(person) == unseen:
            kept += 1
            yield person


def _unseen(person: Portrait) -> bool:
    return person.attributes["sign"] in UNSEEN_WORDS


def sign_named(text: str, person: Portrait) -> bool:
    """Whether a text says the word on the shirt, and no other word of the world.

    >>> person = sign_people(1, 0, unseen=False)[0].with_attribute("sign", "LOVE")
    >>> sign_named("a shirt that says LOVE", person), sign_named("a shirt with JAZZ", person)
    (True, False)
    """
    words = {w.strip(".,;:") for w in text.split()} & set(VALUES["sign"])
    return words == {person.attributes["sign"]}
