"""The edits that methods are compared on, and the portraits each of them is possible for.

The renderer is the oracle: of every case the picture after a perfect edit is known, and so are the
pixels that may change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.worlds.portraits import KEYS, Portrait, draw, held_out_pairs_of, sample
from guided.worlds.portraits.attributes import COLORS
from guided.worlds.portraits.grammar.free_words import FREE_EDITS
from guided.worlds.portraits.grammar.paraphrases import Paraphrase

#: World seeds of judged portraits, of the portraits that baselines are tuned on, and how far apart
#: the seeds of a benchmark's repetitions are.
JUDGED, TUNING, APART = 9_000_000, 9_500_000, 20_000
#: How far the colour of a pixel must move, in [0, 1], to count as owned by a change.
_MOVED = 2.5 / 255


@dataclass(frozen=True)
class Edit:
    """What to change: ``prompt`` and ``neutral`` in words, ``changes`` as attributes and values.

    ``text`` says the prompt in one sentence, for methods that take no more; ``given`` is what the
    source must show; ``also`` are further values that the prompt is true of.
    """

    name: str
    prompt: str
    changes: tuple[tuple[str, str], ...]
    neutral: str = "a person"
    given: tuple[tuple[str, str], ...] = ()
    sentence: str = ""
    also: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The prompt in one sentence."""
        return self.sentence or self.prompt

    @property
    def slug(self) -> str:
        """The name as part of a file's: "earrings-blue-background"."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.name).split())

    def possible(self, source: Portrait) -> bool:
        """Whether a portrait lacks what the edit asks for and would show it afterwards.

        Results that show a pair of values which no training portrait has are left out.
        """
        has = source.attributes
        if any(has[key] in self._values(key, value) for key, value in self.changes):
            return False
        if any(has[key] != value for key, value in self.given):
            return False
        found = self.truths(source)
        return bool(found) and all(found[0].visible()[key] for key, _ in self.changes)

    def reached(self, attributes: Mapping[str, str | None]) -> bool:
        """Whether a person with these attributes has all that the edit asks for."""
        return all(attributes[key] in self._values(key, value) for key, value in self.changes)

    def truths(self, source: Portrait) -> tuple[Portrait, ...]:
        """The portraits after a perfect edit: one, or one for each value that the prompt leaves
        open (the colour of a new hat, what kind of beard), the plainest first.
        """
        found = [after for changes in self._all_changes() for after in _changed(source, changes)]
        return tuple(
            person for person in found
            if not held_out_pairs_of(person.attributes)
            and person.attributes["hat_color"] != person.attributes["clothing"]
        )  # fmt: skip

    def _values(self, key: str, value: str) -> tuple[str, ...]:
        """The values of a changed key that the prompt is true of."""
        return (value, *(other for name, other in self.also if name == key))

    def _all_changes(self) -> Iterator[tuple[tuple[str, str], ...]]:
        """The changes with every choice of values."""
        return product(*([(k, v) for v in self._values(k, value)] for k, value in self.changes))


def _changed(source: Portrait, changes: Sequence[tuple[str, str]]) -> list[Portrait]:
    """The portrait changed, once for each colour of a new hat whose colour is left open."""
    after = source
    for key, value in changes:
        after = after.with_attribute(key, value)
    new_hat = source.attributes["hat"] == "none" != after.attributes["hat"]
    if not new_hat or "hat_color" in dict(changes):
        return [after]
    colors = [color for color in COLORS if color != after.attributes["clothing"]]
    return [after.with_attribute("hat_color", color) for color in colors]


def _one(name: str, prompt: str, key: str, value: str, **more: object) -> Edit:
    return Edit(name, prompt, ((key, value),), **more)  # type: ignore[arg-type]


EDITS: tuple[Edit, ...] = (
    _one("pink hair", "a person with pink hair", "hair_color", "pink"),
    _one("black hair", "a person with black hair", "hair_color", "black"),
    _one("bald", "a person with a bald head", "hair_style", "bald"),
    _one("long hair", "a person with long hair", "hair_style", "long"),
    _one("round glasses", "a person wearing round glasses", "glasses", "round"),
    _one("sunglasses", "a person wearing sunglasses", "glasses", "sunglasses"),
    _one("remove glasses", "a person without glasses", "glasses", "none",
         neutral="a person wearing glasses"),
    _one("top hat", "a person wearing a top hat", "hat", "tophat"),
    _one("full beard", "a person with a full beard", "beard", "full"),
    _one("smile to frown", "a person frowning", "expression", "frown",
         neutral="a person smiling", given=(("expression", "smile"),)),
    _one("surprised", "a person looking surprised", "expression", "surprised"),
    Edit(
        "earrings + blue background",
        "a person wearing earrings | a person against a blue background",
        (("earrings", "earrings"), ("background", "blue")),
        sentence="a person wearing earrings against a blue background",
    ),
)  # fmt: skip
"""The twelve edits, from colours over shapes to two changes at once."""


def _in_free_words(asked: Paraphrase) -> Edit:
    values = [(claim.key, sorted(claim.allowed)) for claim in asked.claims]
    changes = tuple((key, first) for key, (first, *_) in values)
    also = tuple((key, other) for key, (_, *rest) in values for other in rest)
    return Edit(asked.text, asked.text, changes, also=also)


FREE_WORD_EDITS: tuple[Edit, ...] = tuple(map(_in_free_words, FREE_EDITS))
"""Edits asked for in everyday words, each named by them."""


@dataclass(frozen=True)
class Case:
    """One edit of one portrait."""

    edit: Edit
    source: Portrait
    seed: int

    @cached_property
    def truths(self) -> tuple[Portrait, ...]:
        """The portraits after a perfect edit."""
        return self.edit.truths(self.source)

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The attributes that the edit leaves alone and that both pictures show."""
        before, after = self.source.visible(), self.truths[0].visible()
        changed = {key for key, _ in self.edit.changes}
        return tuple(k for k in KEYS if before[k] and after[k] and k not in changed)

    def picture(self, size: int) -> Tensor:
        """The source [3, size, size] in [0, 1]."""
        return to_tensor(draw(self.source, size))[0]

    def perfect(self, size: int) -> Tensor:
        """The pictures after a perfect edit [n, 3, size, size] in [0, 1]."""
        return to_tensor([draw(person, size) for person in self.truths])


def cases(edit: Edit, count: int, seed: int = 0, first: int = JUDGED) -> list[Case]:
    """The first ``count`` val portraits that an edit is possible for, from a world seed on.

    ``seed`` counts repetitions: each has portraits of its own.  All edits of one repetition look
    at the same people as far as they are possible for them.
    """
    found: list[Case] = []
    place = first + seed * APART
    while len(found) < count:
        source = sample(place, "val")
        if edit.possible(source):
            found.append(Case(edit, source, place))
        place += 1
    return found


@dataclass(frozen=True)
class Part:
    """A few cases of one edit, and the name they are kept under."""

    name: str
    cases: tuple[Case, ...]
    first: bool


@cache
def parts_of(edits: tuple[Edit, ...], count: int, seeds: int, rows: int = 8) -> tuple[Part, ...]:
    """``count`` cases of each edit and repetition in parts of at most ``rows``; the parts of each
    edit's first repetition lead.
    """
    found = []
    for seed in range(seeds):
        for edit in edits:
            some = cases(edit, count, seed)
            for first in range(0, count, rows):
                some_here = tuple(some[first : first + rows])
                name = f"{edit.slug}-{seed}-{first}-{len(some_here)}"
                found.append(Part(name, some_here, first=seed == first == 0))
    return tuple(found)


def may_change(case: Case, size: int) -> Tensor:
    """The pixels [1, size, size] that differ between the source and a perfect edit: 1, else 0.

    With a margin of 1 / 64 of the side, since a generator's edges are softer than the renderer's.
    """
    before, after = case.picture(size), case.perfect(size)
    moved = ((after - before).abs().amax(1) > _MOVED).any(0, keepdim=True).float()
    margin = max(1, size // 64)
    return F.max_pool2d(moved[None], 2 * margin + 1, 1, margin)[0]


def stacked_pictures(some: Sequence[Case], size: int) -> Tensor:
    """The sources of cases [n, 3, size, size] in [0, 1]."""
    return torch.stack([case.picture(size) for case in some])


def edit_named(name: str) -> Edit:
    """The edit of that name.

    Raises:
        ValueError: none is called that; the message names all.
    """
    every = (*EDITS, *FREE_WORD_EDITS)
    for edit in every:
        if edit.name == name:
            return edit
    raise ValueError(f"there is no edit {name!r}; there are {', '.join(e.name for e in every)}")
