"""The vocabulary of the drawn world: attributes, their chances, and which of them can be seen.

A portrait is fixed by a latent vector of independent standard normal numbers: one number for each
attribute (its quantile picks the value) and one for each trait of the face's geometry. So a
generator trained on the world can keep an honest Gaussian z.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")

#: Words a shirt can show.  The last six never appear in the training of a CLIP.
SIGN_WORDS = (
    "LOVE", "ROCK", "JAZZ", "COOL", "STAR", "MOON", "SUN", "CAT", "DOG",
    "FOX", "BEE", "YES", "NO", "HI", "OK", "WOW", "ART", "FUN",
    "HOPE", "SKY", "OWL", "TEA", "ZEN", "PIE",
)  # fmt: skip
UNSEEN_WORDS = SIGN_WORDS[18:]

VALUES: dict[str, tuple[str, ...]] = {
    "hair_color": ("black", "brown", "blonde", "red", "gray", "white", "blue", "pink"),
    "hair_style": ("bald", "short", "spiky", "curly", "bob", "long", "bun", "ponytail"),
    "skin": ("pale", "light", "tan", "brown", "dark"),
    "eyes": ("brown", "blue", "green", "gray", "amber"),
    "expression": ("smile", "neutral", "frown", "surprised"),
    "glasses": ("none", "round", "square", "sunglasses"),
    "hat": ("none", "beanie", "cap", "tophat"),
    "hat_color": COLORS,
    "beard": ("none", "moustache", "goatee", "full"),
    "earrings": ("none", "earrings"),
    "background": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "gray"),
    "clothing": COLORS,
    "sign": ("none", *SIGN_WORDS),
}
KEYS = tuple(VALUES)
#: Attributes that are nothing but a colour; the others can be told from shapes.
COLOR_KEYS = ("hair_color", "skin", "eyes", "hat_color", "background", "clothing")

CHANCES: dict[str, tuple[float, ...]] = {
    "hair_style": (0.08, 0.15, 0.13, 0.14, 0.13, 0.13, 0.12, 0.12),
    "glasses": (0.55, 0.17, 0.16, 0.12),
    "hat": (0.64, 0.12, 0.12, 0.12),
    "beard": (0.61, 0.13, 0.13, 0.13),
    "earrings": (0.65, 0.35),
    "sign": (0.52, *([0.02] * len(SIGN_WORDS))),
}

#: Continuous traits of a face, each in [-1, 1]; together they are a person's identity.
TRAITS = (
    "face_width", "face_height", "jaw", "eye_gap", "eye_size", "eye_height", "nose_length",
    "nose_width", "mouth_width", "mouth_height", "brow_tilt", "brow_thickness", "ear", "shoulder",
    "tilt", "shift_x", "shift_y", "hair_volume", "parting", "gaze", "light", "cheek", "chin",
    "neck",
)  # fmt: skip
LATENT_SIZE = len(KEYS) + len(TRAITS)

_HIDDEN_BY_HAT = frozenset({"bald", "short", "spiky", "bun"})

Attributes = dict[str, str | None]
Geometry = dict[str, float]


@dataclass(frozen=True)
class Portrait:
    """One person of the world: attribute values and face geometry; pixels follow from both.

    ``attributes`` maps every key of ``VALUES`` to a value (``hat_color`` is None without a hat);
    ``geometry`` maps every name of ``TRAITS`` to a number in [-1, 1].
    """

    attributes: Attributes
    geometry: Geometry

    def visible(self) -> dict[str, bool]:
        """Which attributes a viewer can tell from the picture."""
        return visible(self.attributes)

    def with_attribute(self, key: str, value: str) -> Portrait:
        """The same person with one attribute changed and everything else kept.

        A new hat gets the first colour that differs from the clothing when it had none.

        Raises:
            ValueError: the key or the value is not one of the world's.
        """
        check_value(key, value)
        attributes = dict(self.attributes)
        attributes[key] = value
        if attributes["hat"] == "none":
            attributes["hat_color"] = None
        elif attributes["hat_color"] is None:
            attributes["hat_color"] = next(c for c in COLORS if c != attributes["clothing"])
        return replace(self, attributes=attributes)


def check_value(key: str, value: str) -> None:
    """Accept a value of an attribute of the world, or say what is allowed.

    Raises:
        ValueError: unknown key or value, with the list of known ones.
    """
    if key not in VALUES:
        raise ValueError(f"unknown attribute {key!r}; the world has {', '.join(KEYS)}")
    if value not in VALUES[key]:
        raise ValueError(f"{key} cannot be {value!r}; it is one of {', '.join(VALUES[key])}")


def chances(key: str) -> np.ndarray:
    """Probabilities [n] of an attribute's values, in the order of ``VALUES[key]``."""
    listed = CHANCES.get(key)
    count = len(VALUES[key])
    return np.full(count, 1 / count) if listed is None else np.asarray(listed)


def visible(attributes: Mapping[str, str | None]) -> dict[str, bool]:
    """Which attributes can be told from the picture: hats hide short hair, dark lenses the eyes."""
    seen = dict.fromkeys(KEYS, True)
    hatted = attributes["hat"] != "none"
    if hatted and attributes["hair_style"] in _HIDDEN_BY_HAT:
        seen["hair_style"] = False
    if attributes["hair_style"] == "bald":
        seen["hair_color"] = False
    if attributes["glasses"] == "sunglasses":
        seen["eyes"] = False
    seen["hat_color"] = hatted
    return seen


def normal_quantiles(latent: Sequence[float] | np.ndarray) -> list[float]:
    """Quantiles in (0, 1) of standard normal numbers."""
    return [0.5 * (1 + math.erf(float(value) / math.sqrt(2))) for value in latent]


_CUMULATIVE = {key: np.cumsum(chances(key))[:-1].tolist() for key in KEYS}


def from_latent(latent: np.ndarray) -> Portrait:
    """The portrait of a latent [LATENT_SIZE] of independent standard normal numbers.

    The first ``len(KEYS)`` numbers choose attributes by their quantile, the others are the
    geometry (half their value, clipped to [-1, 1]).

    Raises:
        ValueError: another length.
    """
    latent = np.asarray(latent, dtype=np.float64)
    if latent.shape != (LATENT_SIZE,):
        raise ValueError(f"a latent has shape ({LATENT_SIZE},), not {latent.shape}")
    quantiles = dict(zip(KEYS, normal_quantiles(latent[: len(KEYS)]), strict=True))
    attributes: Attributes = {
        key: VALUES[key][bisect_right(_CUMULATIVE[key], quantiles[key])] for key in KEYS
    }
    if attributes["hat"] == "none":
        attributes["hat_color"] = None
    else:  # a hat never has the colour of the clothing, so captions can tell them apart
        others = [color for color in COLORS if color != attributes["clothing"]]
        attributes["hat_color"] = others[min(int(quantiles["hat_color"] * len(others)), 6)]
    traits = np.clip(0.5 * latent[len(KEYS) :], -1, 1)
    return Portrait(attributes, dict(zip(TRAITS, map(float, traits), strict=True)))
