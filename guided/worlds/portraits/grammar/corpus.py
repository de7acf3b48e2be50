"""What our own language model reads: captions of people of every kind alike, and plain English.

Every attribute is drawn uniformly, so the model has no opinion of its own: what a guided caption
says about a picture can only come from the picture.
"""

from __future__ import annotations

import numpy as np

from guided.worlds.portraits.attributes import COLORS, KEYS, VALUES, Portrait, visible
from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.grammar.frames import TRAIN, CaptionStyle
from guided.worlds.portraits.grammar.plain import plain_sentence

#: How often a person of the corpus wears a word on the shirt, and how often a hat.
SIGN_SHARE = HAT_SHARE = 0.5
PLAIN_SHARE = 0.2


def _hidden_by_hats(style: str) -> bool:
    person: dict[str, str | None] = {key: values[0] for key, values in VALUES.items()}
    return not visible({**person, "hair_style": style, "hat": "cap"})["hair_style"]


#: A hat hides styles, so captions speak of them half as often: they are drawn twice as often.
_STYLES = (*VALUES["hair_style"], *filter(_hidden_by_hats, VALUES["hair_style"]))
_WORN = {"sign": SIGN_SHARE, "hat": HAT_SHARE}


def uniform_person(rng: np.random.Generator) -> Portrait:
    """A person of whom every value of every attribute is as likely to be told (no geometry).

    Values are uniform and independent, but for what keeps captions even: half of all people wear
    a hat, half a word, each kind alike; styles that a hat hides are drawn twice as often; a hat's
    colour is uniform over those that differ from the clothing's, as in the world.
    """
    attributes: dict[str, str | None] = {key: _value(key, rng) for key in KEYS}
    if attributes["hat"] == "none":
        attributes["hat_color"] = None
    elif attributes["hat_color"] == attributes["clothing"]:
        place = COLORS.index(str(attributes["clothing"])) + 1 + int(rng.integers(len(COLORS) - 1))
        attributes["hat_color"] = COLORS[place % len(COLORS)]
    return Portrait(attributes, {})


def _value(key: str, rng: np.random.Generator) -> str:
    values = _STYLES if key == "hair_style" else VALUES[key]
    if key in _WORN:
        if rng.random() >= _WORN[key]:
            return "none"
        values = tuple(value for value in values if value != "none")
    return values[int(rng.integers(len(values)))]


def document(seed: int, index: int, style: CaptionStyle = TRAIN) -> str:
    """Text ``index`` of the corpus ``seed``: a caption, or now and then a plain sentence."""
    rng = np.random.default_rng([seed, index, 11])
    if rng.random() < PLAIN_SHARE:
        return plain_sentence(rng)
    return caption(uniform_person(rng), rng, style=style).text
