"""Questions about a portrait with exact answers, balanced so that guessing blind does not pay.

Whoever knows only the text of a question should do no better than chance. So whether a question is
asked depends on its answer: an answer that is more common in the world than the rarest one is let
through that much more rarely (``_even``). Only visible things are asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from guided.worlds.portraits.attributes import SIGN_WORDS, VALUES, Portrait
from guided.worlds.portraits.grammar.names import name
from guided.worlds.portraits.odds import THINGS, presence_odds, same_odds, some_odds, value_odds


class Question(NamedTuple):
    """A question, its exact answer, and the family it belongs to."""

    question: str
    answer: str
    family: str


#: How a question names the things a person may have.
NAMED = {
    "glasses": "glasses",
    "hat": "a hat",
    "earrings": "earrings",
    "beard": "facial hair",
    "sign": "a word on the shirt",
}

_IS = {
    "hair_color": "Is the hair {}?", "hair_style": "Is the hairstyle {}?",
    "skin": "Is the skin {}?", "eyes": "Are the eyes {}?", "expression": "Is the face {}?",
    "glasses": "Does the person wear {}?", "hat": "Is there a {} on the head?",
    "hat_color": "Is the hat {}?", "beard": "Does the person have a {}?",
    "earrings": "Are there {}?",
    "background": "Is the background {}?", "clothing": "Is the shirt {}?",
    "sign": "Does the shirt say {}?",
}  # fmt: skip
_COLORS = {
    "hair_color": "What color is the hair?", "eyes": "What color are the eyes?",
    "hat_color": "What color is the hat?", "background": "What color is the background?",
    "clothing": "What color is the shirt?",
}  # fmt: skip
_WHICH = {
    "hair_style": "What is the hairstyle?", "skin": "How light or dark is the skin?",
    "expression": "What is the expression?", "glasses": "What kind of glasses are worn?",
    "hat": "What kind of hat is worn?", "beard": "What kind of facial hair is there?",
}  # fmt: skip
_PLACES = {
    "hat": "What is on the head besides hair?", "glasses": "What is in front of the eyes?",
    "earrings": "What is on the ears?", "beard": "What grows on the face?",
    "sign": "What is written on the shirt?",
}  # fmt: skip
_EITHER = {
    "hair_color": "Is the hair {} or {}?", "hair_style": "Is the hairstyle {} or {}?",
    "skin": "Is the skin {} or {}?", "eyes": "Are the eyes {} or {}?",
    "expression": "Is the face {} or {}?", "glasses": "Does the person wear {} or {}?",
    "hat": "Is the hat a {} or a {}?", "hat_color": "Is the hat {} or {}?",
    "beard": "Is the facial hair a {} or a {}?", "background": "Is the background {} or {}?",
    "clothing": "Is the shirt {} or {}?", "sign": "Does the shirt say {} or {}?",
}  # fmt: skip
_WITHOUT = {
    "glasses": "Is the person without glasses?", "hat": "Is the person without a hat?",
    "earrings": "Is the person without earrings?", "beard": "Is the person without facial hair?",
    "sign": "Is the shirt without a word?",
}  # fmt: skip
_PAIRS = (
    ("clothing", "background", "Do the shirt and the background have the same color?"),
    ("hair_color", "background", "Do the hair and the background have the same color?"),
    ("hair_color", "clothing", "Do the hair and the shirt have the same color?"),
    ("hat_color", "background", "Do the hat and the background have the same color?"),
    ("hair_color", "hat_color", "Do the hair and the hat have the same color?"),
    ("hair_color", "eyes", "Do the hair and the eyes have the same color?"),
)

_ANSWER = {True: "yes", False: "no"}


def _even(rng: np.random.Generator, answer: str, odds: Mapping[str, float]) -> bool:
    """Whether to ask although this is the answer: always if it is the rarest, rarely if common."""
    return bool(rng.random() * odds[answer] < min(odds.values()))


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


class _Asker:
    """One portrait and one stream of draws; each method makes a family's question or none."""

    def __init__(self, portrait: Portrait, rng: np.random.Generator) -> None:
        self.rng = rng
        self.seen = portrait.visible()
        self.have = {key: str(value) for key, value in portrait.attributes.items()}
        self.things = {key: self.have[key] != "none" for key in THINGS}

    def _key(self, texts: Mapping[str, str], odds: Callable[[str], dict[str, float]]) -> str:
        """A random visible key whose value is let through, or an empty string."""
        keys = [key for key in texts if self.seen[key] and self.have[key] in odds(key)]
        keys = [key for key in keys if _even(self.rng, self.have[key], odds(key))]
        return _pick(self.rng, keys) if keys else ""

    def yes_no(self) -> tuple[str, str] | None:
        """Whether an attribute has a value; yes as often as no for each text."""
        key = self._key(_IS, value_odds)
        if not key:
            return None
        value, values = self.have[key], [v for v in VALUES[key] if v != "none"]
        # With "none" never asked about, the n - 1 others are affirmed n / (2 (n - 1)) of the time.
        affirm = 0.5 * len(VALUES[key]) / len(values)
        truth = value != "none" and self.rng.random() < affirm
        if not truth:
            value = _pick(self.rng, [v for v in values if v != value])
        return _IS[key].format(name(key, value)), _ANSWER[truth]

    def color(self) -> tuple[str, str] | None:
        """The color of something."""
        key = self._key(_COLORS, value_odds)
        return (_COLORS[key], self.have[key]) if key else None

    def which(self) -> tuple[str, str] | None:
        """Which kind of something there is."""
        key = self._key(_WHICH, some_odds)
        return (_WHICH[key], name(key, self.have[key])) if key else None

    def either(self) -> tuple[str, str] | None:
        """Which of two values it is."""
        key = self._key(_EITHER, some_odds)
        if not key:
            return None
        right = self.have[key]
        both = [right, _pick(self.rng, [v for v in some_odds(key) if v != right])]
        first = int(self.rng.integers(2))
        text = _EITHER[key].format(name(key, both[first]), name(key, both[1 - first]))
        return text, name(key, right)

    def place(self) -> tuple[str, str] | None:
        """What is at a place, "nothing" included."""
        key = self._key(_PLACES, value_odds)
        if not key:
            return None
        value = self.have[key]
        return _PLACES[key], "nothing" if value == "none" else name(key, value)

    def without(self) -> tuple[str, str] | None:
        """Whether something is absent."""
        key = _pick(self.rng, list(_WITHOUT))
        answer = _ANSWER[not self.things[key]]
        odds = _coin(presence_odds((key,))[(False,)])
        return (_WITHOUT[key], answer) if _even(self.rng, answer, odds) else None

    def _some(self, count: int) -> tuple[str, ...]:
        """Some of the things, in their usual order."""
        return tuple(THINGS[i] for i in sorted(self.rng.permutation(len(THINGS))[:count]))

    def both(self) -> tuple[str, str] | None:
        """Whether two things are both there."""
        keys = self._some(2)
        answer = _ANSWER[all(self.things[key] for key in keys)]
        text = f"Are there {NAMED[keys[0]]} and {NAMED[keys[1]]}, both of them?"
        odds = _coin(presence_odds(keys)[True, True])
        return (text, answer) if _even(self.rng, answer, odds) else None

    def any(self) -> tuple[str, str] | None:
        """Whether at least one of two things is there."""
        keys = self._some(2)
        answer = _ANSWER[any(self.things[key] for key in keys)]
        text = f"Is there at least one of {NAMED[keys[0]]} and {NAMED[keys[1]]}?"
        odds = _coin(1 - presence_odds(keys)[False, False])
        return (text, answer) if _even(self.rng, answer, odds) else None

    def count(self) -> tuple[str, str] | None:
        """How many of two or three things there are."""
        keys = self._some(2 + int(self.rng.integers(2)))
        odds = dict.fromkeys(map(str, range(len(keys) + 1)), 0.0)
        for way, share in presence_odds(keys).items():
            odds[str(sum(way))] += share
        answer = str(sum(self.things[key] for key in keys))
        text = f"How many of these can be seen: {', '.join(NAMED[key] for key in keys)}?"
        return (text, answer) if _even(self.rng, answer, odds) else None

    def odd_one(self) -> tuple[str, str] | None:
        """Which one of three things is missing, or which one is there."""
        keys = self._some(3)
        there = [self.things[key] for key in keys]
        if sum(there) not in (1, 2):
            return None
        alone = sum(there) == 1  # whether the odd one is the one that is there
        shares = presence_odds(keys)
        odds = {k: shares[tuple((other == k) is alone for other in keys)] for k in keys}
        odd = keys[there.index(alone)]
        verb = "can be seen" if alone else "is missing"
        text = f"Which one of these {verb}: {', '.join(NAMED[key] for key in keys)}?"
        return (text, NAMED[odd]) if _even(self.rng, odd, odds) else None

    def same(self) -> tuple[str, str] | None:
        """Whether two things have the same color."""
        pairs = [pair for pair in _PAIRS if self.seen[pair[0]] and self.seen[pair[1]]]
        if not pairs:
            return None
        one, other, text = pairs[int(self.rng.integers(len(pairs)))]
        answer = _ANSWER[self.have[one] == self.have[other]]
        return (text, answer) if _even(self.rng, answer, _coin(same_odds(one, other))) else None

    def read(self) -> tuple[str, str] | None:
        """The word on the shirt."""
        word = self.have["sign"]
        return None if word == "none" else ("What word is on the shirt?", word)

    def spell(self) -> tuple[str, str] | None:
        """The first or last letter of the word on the shirt, or how many it has."""
        if self.have["sign"] == "none":
            return None
        what, part = _SPELLING[int(self.rng.integers(len(_SPELLING)))]
        answers = [part(word) for word in SIGN_WORDS]
        odds = {answer: float(answers.count(answer)) for answer in answers}
        answer = part(self.have["sign"])
        return (f"{what} the word on the shirt?", answer) if _even(self.rng, answer, odds) else None


def _coin(chance: float) -> dict[str, float]:
    return {"yes": chance, "no": 1 - chance}


_SPELLING: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("What is the first letter of", lambda word: word[0]),
    ("What is the last letter of", lambda word: word[-1]),
    ("How many letters are in", lambda word: str(len(word))),
)

_FAMILIES: dict[str, Callable[[_Asker], tuple[str, str] | None]] = {
    "yes-no": _Asker.yes_no, "color": _Asker.color, "which": _Asker.which,
    "either-or": _Asker.either, "location": _Asker.place, "negation": _Asker.without,
    "conjunction": _Asker.both, "disjunction": _Asker.any, "count": _Asker.count,
    "odd-one": _Asker.odd_one, "comparison": _Asker.same, "reading": _Asker.read,
    "spelling": _Asker.spell,
}  # fmt: skip
FAMILIES = tuple(_FAMILIES)


def questions(portrait: Portrait, rng: np.random.Generator) -> list[Question]:
    """Questions with exact answers, at most one of each of the 13 ``FAMILIES``, in random order.

    About eight come of a portrait; which families do depends on what balances their answers.
    """
    asker = _Asker(portrait, rng)
    asked = [(family, ask(asker)) for family, ask in _FAMILIES.items()]
    found = [Question(*made, family) for family, made in asked if made is not None]
    return [found[place] for place in rng.permutation(len(found))]
