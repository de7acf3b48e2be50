"""Plain English sentences by a small grammar, so that a language model knows more than faces.

Every sentence is made of independent choices, so there are far more of them than a training
reads; nothing is taken from any text.
"""

from __future__ import annotations

import numpy as np

_BEINGS = (
    "man", "woman", "child", "girl", "boy", "farmer", "teacher", "doctor", "baker", "sailor",
    "painter", "gardener", "neighbor", "driver", "dancer", "singer", "student", "cook", "dog",
    "cat", "horse", "bird", "fox", "owl", "bee", "goat", "rabbit", "duck",
)  # fmt: skip
_THINGS = (
    "table", "chair", "basket", "book", "letter", "lamp", "box", "bottle", "cup", "plate", "bag",
    "bicycle", "boat", "car", "kite", "ball", "clock", "mirror", "picture", "coat", "shirt", "hat",
    "scarf", "shoe", "apple", "pear", "loaf", "pie", "cake", "flower", "stone", "ladder", "rope",
    "bell", "key", "drum", "guitar", "wheel", "blanket", "pot",
)  # fmt: skip
_PLACES = (
    "house", "garden", "river", "bridge", "road", "field", "forest", "hill", "market", "school",
    "station", "kitchen", "window", "door", "wall", "fence", "tower", "harbor", "lake", "barn",
    "shop", "street", "tree", "roof", "mountain", "beach",
)  # fmt: skip
_LOOKS = (
    "old", "young", "tall", "small", "large", "little", "quiet", "happy", "sad", "tired", "kind",
    "clever", "strong", "proud", "shy", "busy", "friendly", "calm", "curious", "gentle",
)  # fmt: skip
_SORTS = (
    "red", "orange", "yellow", "green", "blue", "purple", "white", "black", "brown", "gray", "pink",
    "new", "old", "broken", "heavy", "light", "round", "square", "wooden", "empty", "clean",
    "wide", "narrow", "pretty", "plain", "bright", "dark", "soft", "wet", "dry",
)  # fmt: skip
_DEEDS = (
    "carried", "found", "painted", "washed", "bought", "sold", "lost", "opened", "closed", "hid",
    "saw", "held", "dropped", "moved", "fixed", "drew", "brought", "kept", "wanted", "liked",
)  # fmt: skip
_MOVES = (
    "walked", "ran", "slept", "sang", "waited", "danced", "stood", "sat", "laughed", "worked",
    "rested", "smiled", "looked around", "fell asleep", "played",
)  # fmt: skip
_WHERE = ("in", "near", "behind", "beside", "in front of", "under", "next to", "far from")
_WHEN = (
    "in the morning", "at noon", "in the evening", "at night", "every day", "last week",
    "after the rain", "before dinner", "in summer", "in winter", "on Sunday", "again",
)  # fmt: skip
_MANY = ("two", "three", "four", "five", "many", "some", "several", "a few")
_SKY = ("sun", "moon", "sky", "wind", "rain", "snow", "light", "air")
_WEATHER = ("warm", "cold", "bright", "pale", "soft", "gray", "clear", "strong", "gone", "calm")


class _Pen:
    """Random choices of words."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def one(self, words: tuple[str, ...]) -> str:
        """One of the words."""
        return words[int(self._rng.integers(len(words)))]

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return bool(self._rng.random() < share)

    def named(self, nouns: tuple[str, ...], looks: tuple[str, ...]) -> str:
        """A noun with an article, perhaps with an adjective."""
        words = f"{self.one(looks)} {self.one(nouns)}" if self.chance(0.6) else self.one(nouns)
        if self.chance(0.5):
            return f"the {words}"
        return f"an {words}" if words[0] in "aeiou" else f"a {words}"

    def counted(self) -> str:
        """Several things."""
        noun = self.one(_THINGS)
        plural = "loaves" if noun == "loaf" else noun + ("es" if noun[-1] in "xs" else "s")
        sort = f"{self.one(_SORTS)} " if self.chance(0.4) else ""
        return f"{self.one(_MANY)} {sort}{plural}"

    def place(self) -> str:
        """Where something is."""
        return f"{self.one(_WHERE)} the {self.one(_PLACES)}"


def _deed(pen: _Pen) -> str:
    what = pen.counted() if pen.chance(0.3) else pen.named(_THINGS, _SORTS)
    where = f" {pen.place()}" if pen.chance(0.5) else ""
    when = f" {pen.one(_WHEN)}" if pen.chance(0.3) else ""
    return f"{pen.named(_BEINGS, _LOOKS)} {pen.one(_DEEDS)} {what}{where}{when}"


def _move(pen: _Pen) -> str:
    when = f" {pen.one(_WHEN)}" if pen.chance(0.4) else ""
    return f"{pen.named(_BEINGS, _LOOKS)} {pen.one(_MOVES)} {pen.place()}{when}"


def _sight(pen: _Pen) -> str:
    if pen.chance(0.4):
        return f"there were {pen.counted()} {pen.place()}"
    return f"there is {pen.named(_THINGS, _SORTS)} {pen.place()}"


def _trait(pen: _Pen) -> str:
    if pen.chance(0.5):
        return f"the {pen.one(_BEINGS)} is {pen.one(_LOOKS)} and {pen.one(_LOOKS)}"
    return f"the {pen.one(_THINGS)} {pen.place()} is {pen.one(_SORTS)} and {pen.one(_SORTS)}"


def _weather(pen: _Pen) -> str:
    return f"the {pen.one(_SKY)} was {pen.one(_WEATHER)} {pen.one(_WHEN)}"


_KINDS = (_deed, _deed, _move, _sight, _trait, _weather)


def plain_sentence(rng: np.random.Generator) -> str:
    """A sentence such as "The old fox found a red kite near the bridge."."""
    pen = _Pen(rng)
    said = _KINDS[int(rng.integers(len(_KINDS)))](pen)
    if pen.chance(0.2):
        said = f"{said} and {_move(pen)}"
    return f"{said[0].upper()}{said[1:]}."
