"""Colours of the drawn world and the tones a flat drawing needs of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Color = tuple[int, int, int]

#: Colour names to sRGB, one palette for each attribute that names a colour.
PALETTES: dict[str, dict[str, Color]] = {
    "hair_color": {
        "black": (34, 30, 40),
        "brown": (114, 62, 26),
        "blonde": (248, 206, 78),
        "red": (226, 88, 28),
        "gray": (134, 138, 150),
        "white": (245, 247, 253),
        "blue": (46, 96, 226),
        "pink": (246, 104, 178),
    },
    "skin": {
        "pale": (255, 229, 218),
        "light": (250, 200, 152),
        "tan": (216, 152, 98),
        "brown": (162, 102, 64),
        "dark": (76, 46, 38),
    },
    "eyes": {
        "brown": (104, 54, 20),
        "blue": (34, 112, 248),
        "green": (34, 172, 70),
        "gray": (140, 150, 164),
        "amber": (246, 164, 16),
    },
    "clothing": {
        "red": (222, 50, 58),
        "orange": (248, 140, 34),
        "yellow": (253, 214, 56),
        "green": (42, 158, 86),
        "blue": (44, 98, 214),
        "purple": (134, 70, 194),
        "white": (246, 247, 251),
        "black": (46, 46, 57),
    },
    "background": {
        "red": (226, 92, 88),
        "orange": (250, 168, 88),
        "yellow": (252, 224, 116),
        "green": (128, 202, 138),
        "blue": (122, 182, 242),
        "purple": (172, 138, 226),
        "pink": (250, 172, 208),
        "gray": (188, 193, 203),
    },
}
PALETTES["hat_color"] = PALETTES["clothing"]

INK_DARK: Color = (40, 35, 52)
WHITE: Color = (255, 255, 255)
_DUSK: Color = (38, 16, 54)
#: Warm colours darken towards embers; a violet dusk would turn yellow into olive.
_EMBER: Color = (122, 26, 18)
_DAWN: Color = (255, 250, 238)


@dataclass(frozen=True)
class Tones:
    """One colour of the drawing in five steps, from the lightest to the outline's."""

    light: Color
    base: Color
    shade: Color
    deep: Color
    edge: Color


def mix(first: Color, second: Color, amount: float) -> Color:
    """The colour ``amount`` in [0, 1] of the way from the first to the second, in sRGB."""
    keep = 1 - amount
    return (
        round(first[0] * keep + second[0] * amount),
        round(first[1] * keep + second[1] * amount),
        round(first[2] * keep + second[2] * amount),
    )


@lru_cache(maxsize=256)
def tones(palette: str, name: str) -> Tones:
    """The five tones of a named colour; the palette is a key of ``PALETTES``."""
    base = PALETTES[palette][name]
    if sum(base) > 690 and palette != "skin":
        # White has nowhere lighter to go: its body is drawn in cool grays instead.
        return Tones(WHITE, base, (213, 218, 233), (164, 171, 196), (112, 118, 148))
    if sum(base) < 170 and palette != "skin":
        return Tones(mix(base, (150, 150, 200), 0.34), base, mix(base, (0, 0, 10), 0.42),
                     mix(base, (0, 0, 8), 0.66), mix(base, (0, 0, 8), 0.8))  # fmt: skip
    dusk = _EMBER if palette == "skin" or base[0] > base[2] + 60 else _DUSK
    return Tones(
        mix(base, _DAWN, 0.34),
        base,
        mix(base, dusk, 0.17 if palette == "skin" else 0.22),
        mix(base, dusk, 0.46),
        mix(base, mix(dusk, _DUSK, 0.4), 0.64),
    )


def lab(color: Color) -> np.ndarray:
    """CIE L*a*b* [3] of an sRGB colour under D65. Source: CIE 15:2004; IEC 61966-2-1."""
    encoded = np.asarray(color, dtype=np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    ratio = to_xyz @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(first: Color, second: Color) -> float:
    """CIE76 colour difference (delta E*ab) of two sRGB colours; about 2.3 is just noticeable."""
    return float(np.linalg.norm(lab(first) - lab(second)))
