"""Capital letters as round strokes, for the words on shirts; no font files.

A glyph lives in a box 1 high (y 0 at the top, 1 at the base line) and as wide as it needs. The
strokes are centre lines; straight ones have two points, curved ones are smooth through all.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from guided.worlds.portraits.drawing.shapes import Points, grow, loop, ring, stroke

_Line = tuple[tuple[float, float], ...]
_BOWL: _Line = ((0.0, 0.0), (0.42, 0.02), (0.62, 0.25), (0.42, 0.5), (0.0, 0.52))

#: Letter -> (advance width, strokes); a stroke that ends where it began is closed.
GLYPHS: dict[str, tuple[float, tuple[_Line, ...]]] = {
    "A": (0.74, (((0, 1), (0.37, 0)), ((0.37, 0), (0.74, 1)), ((0.15, 0.66), (0.59, 0.66)))),
    "B": (0.62, (((0, 0), (0, 1)), ((0, 0), (0.3, 0), (0.52, 0.22), (0.32, 0.46), (0, 0.47)),
         ((0, 0.47), (0.38, 0.48), (0.62, 0.73), (0.38, 0.99), (0, 1)))),
    "C": (0.66, (
         ((0.66, 0.17), (0.42, 0), (0.14, 0.12), (0, 0.5), (0.14, 0.88), (0.42, 1),
          (0.66, 0.83)),)),
    "D": (0.64, (((0, 0), (0, 1)), ((0, 0), (0.34, 0.04), (0.64, 0.5), (0.34, 0.96), (0, 1)))),
    "E": (0.56, (((0, 0), (0, 1)), ((0, 0), (0.56, 0)), ((0, 0.49), (0.46, 0.49)),
         ((0, 1), (0.56, 1)))),
    "F": (0.56, (((0, 0), (0, 1)), ((0, 0), (0.56, 0)), ((0, 0.48), (0.46, 0.48)))),
    "G": (0.7, (
         ((0.66, 0.16), (0.42, 0), (0.14, 0.12), (0, 0.5), (0.14, 0.88), (0.42, 1), (0.7, 0.84)),
         ((0.7, 0.84), (0.7, 0.54)), ((0.7, 0.54), (0.42, 0.54)))),
    "H": (0.64, (((0, 0), (0, 1)), ((0.64, 0), (0.64, 1)), ((0, 0.5), (0.64, 0.5)))),
    "I": (0.44, (((0.22, 0), (0.22, 1)), ((0, 0), (0.44, 0)), ((0, 1), (0.44, 1)))),
    "J": (0.54, (((0.54, 0), (0.54, 0.62), (0.5, 0.86), (0.3, 1), (0.08, 0.92), (0, 0.7)),
         ((0.22, 0), (0.54, 0)))),
    "K": (0.62, (((0, 0), (0, 1)), ((0.6, 0), (0.04, 0.56)), ((0.2, 0.42), (0.62, 1)))),
    "L": (0.54, (((0, 0), (0, 1)), ((0, 1), (0.54, 1)))),
    "M": (0.84, (((0, 1), (0.04, 0)), ((0.04, 0), (0.42, 0.68)), ((0.42, 0.68), (0.8, 0)),
         ((0.8, 0), (0.84, 1)))),
    "N": (0.66, (((0, 1), (0, 0)), ((0, 0), (0.66, 1)), ((0.66, 1), (0.66, 0)))),
    "O": (0.76, (
         ((0.38, 0), (0.1, 0.14), (0, 0.5), (0.1, 0.86), (0.38, 1), (0.66, 0.86), (0.76, 0.5),
          (0.66, 0.14), (0.38, 0)),)),
    "P": (0.6, (((0, 0), (0, 1)), ((0, 0), (0.42, 0.02), (0.62, 0.25), (0.42, 0.5), (0, 0.52)))),
    "R": (0.62, (((0, 0), (0, 1)), ((0, 0), (0.42, 0.02), (0.62, 0.25), (0.42, 0.5), (0, 0.52)),
         ((0.26, 0.52), (0.62, 1)))),
    "S": (0.62, (
         ((0.58, 0.14), (0.34, 0), (0.06, 0.1), (0.04, 0.34), (0.31, 0.49), (0.58, 0.65),
          (0.56, 0.9), (0.28, 1), (0.02, 0.86)),)),
    "T": (0.66, (((0, 0), (0.66, 0)), ((0.33, 0), (0.33, 1)))),
    "U": (0.64, (
         ((0, 0), (0, 0.6), (0.08, 0.88), (0.32, 1), (0.56, 0.88), (0.64, 0.6), (0.64, 0)),)),
    "V": (0.72, (((0, 0), (0.36, 1)), ((0.36, 1), (0.72, 0)))),
    "W": (0.98, (((0, 0), (0.24, 1)), ((0.24, 1), (0.49, 0.22)), ((0.49, 0.22), (0.74, 1)),
         ((0.74, 1), (0.98, 0)))),
    "X": (0.66, (((0, 0), (0.66, 1)), ((0.66, 0), (0, 1)))),
    "Y": (0.68, (((0, 0), (0.34, 0.5)), ((0.68, 0), (0.34, 0.5)), ((0.34, 0.5), (0.34, 1)))),
    "Z": (0.62, (((0, 0), (0.62, 0)), ((0.62, 0), (0, 1)), ((0, 1), (0.62, 1)))),
}  # fmt: skip


@lru_cache(maxsize=64)
def word(text: str, height: float, thickness: float) -> tuple[Points, ...]:
    """The strokes of a word as polygons, centred on the origin.

    ``height`` is the outer height of a letter and ``thickness`` the width of a stroke, in the
    units of the picture.

    Raises:
        ValueError: a character that has no glyph.
    """
    missing = sorted(set(text) - set(GLYPHS))
    if missing:
        raise ValueError(f"no glyph for {', '.join(missing)}; there are {''.join(GLYPHS)}")
    scale = height - thickness
    gap = 2.0 * thickness
    polygons: list[Points] = []
    left = 0.0
    for letter in text:
        width, lines = GLYPHS[letter]
        polygons += [_pen(np.array(line) * scale + (left, 0.0), thickness) for line in lines]
        left += width * scale + gap
    centre = (left - gap) / 2
    return tuple(polygon - (centre, scale / 2) for polygon in polygons)


def _pen(line: Points, thickness: float) -> Points:
    """A line drawn round; one that ends where it began becomes a ring without a seam."""
    if len(line) > 3 and np.allclose(line[0], line[-1]):
        centre = loop(line[:-1])
        return ring(grow(centre, thickness / 2), grow(centre, -thickness / 2))
    return stroke(line, thickness)
