"""Eyes, brows, mouth and beard: what tells the expression."""

from __future__ import annotations

import numpy as np

from guided.worlds.portraits.drawing.layout import Layout
from guided.worlds.portraits.drawing.palette import WHITE, Color, mix, tones
from guided.worlds.portraits.drawing.shapes import (
    Pen,
    Points,
    band,
    curve,
    ellipse,
    grow,
    loop,
    mirror,
    stroke,
)

_OPENING = {"smile": 0.84, "neutral": 0.79, "frown": 0.72, "surprised": 1.14}
_LASH: Color = (40, 26, 36)
_PUPIL: Color = (18, 12, 20)
_THROAT: Color = (112, 22, 40)
_TONGUE: Color = (236, 98, 108)
#: Brow rise at the inner end, the middle and the outer end, in fractions of the canvas (up < 0).
_BROW_RISE = {
    "smile": (0.0, -0.016, 0.004),
    "neutral": (0.0, -0.004, 0.002),
    "frown": (0.03, 0.0, -0.01),
    "surprised": (-0.018, -0.042, -0.016),
}


def draw_eyes(pen: Pen, layout: Layout, name: str, expression: str) -> None:
    """Two big eyes: white, rimmed iris, pupil, catchlights and the upper lid's line."""
    iris = tones("eyes", name)
    size, open_ = layout.eye, _OPENING[expression]
    radius = size * 0.78
    high = size * 0.96 * open_
    rim = mix(iris.base, (20, 10, 30), 0.5)
    lid = np.array([(-1.12, -0.2), (-0.6, -0.84), (0, -1.04), (0.6, -0.84), (1.12, -0.2)])
    for s in (-1, 1):
        x, y = s * layout.eye_gap, layout.eye_y
        look = x + layout.gaze
        pen.fill("eyes", ellipse(x, y, size * 1.04, high * 1.04), (150, 130, 140))
        pen.fill("eyes", ellipse(x, y, size, high), WHITE)
        rise = y - max(radius - high, 0.0) * 0.6
        for scale, color in ((1.0, rim), (0.86, iris.base)):
            disc = ellipse(look, rise, radius * scale)
            pen.fill("eyes", _within(disc, (x, y), (size, high * (0.94 + 0.06 * scale))), color)
        pen.fill("eyes", ellipse(look, rise + radius * 0.04, radius * 0.36), _PUPIL)
        pen.fill("eyes", ellipse(look - radius * 0.36, rise - radius * 0.32, radius * 0.24), WHITE)
        pen.fill("eyes", stroke(lid * (size, high) + (x, y), 0.016, 0.45), _LASH)


def _within(disc: Points, centre: tuple[float, float], radii: tuple[float, float]) -> Points:
    """The disc cut by the lids: no vertex above or below the eye's ellipse at its x."""
    across = np.clip((disc[:, 0] - centre[0]) / radii[0], -1, 1)
    half = radii[1] * np.sqrt(1 - across * across)
    return np.stack([disc[:, 0], np.clip(disc[:, 1], centre[1] - half, centre[1] + half)], 1)


def draw_brows(pen: Pen, layout: Layout, hair: str, expression: str) -> None:
    """Two brows whose slope and height follow the expression."""
    t = tones("hair_color", hair)
    color = t.edge if hair not in ("black", "brown") else t.deep
    inner, middle, outer = _BROW_RISE[expression]
    base = layout.eye_y - layout.eye * 0.94 - 0.03
    for s in (-1, 1):
        x = s * layout.eye_gap
        a, b = x - s * layout.eye * 0.92, x + s * layout.eye * 1.08
        line = [
            (a, base + layout.brow_tilt + inner),
            ((a + b) / 2, base - 0.006 + middle),
            (b, base + 0.006 - layout.brow_tilt + outer),
        ]
        pen.fill("brows", stroke(line, layout.brow, 0.4), color)


def draw_mouth(pen: Pen, layout: Layout, skin: str, expression: str) -> None:
    """The mouth of an expression, with lips light enough to show inside a beard."""
    lip = mix(tones("skin", skin).base, (236, 78, 96), 0.68)
    wide, y = layout.mouth, layout.mouth_y
    if expression == "smile":
        _smile(pen, wide, y, lip)
    elif expression == "surprised":
        centre = y + 0.04
        pen.fill("mouth", ellipse(0, centre, wide * 0.62, 0.056), lip)
        pen.fill("mouth", ellipse(0, centre, wide * 0.45, 0.043), _THROAT)
        pen.fill("mouth", ellipse(0, centre + 0.022, wide * 0.28, 0.017), _TONGUE)
    else:
        fall = 0.04 if expression == "frown" else -0.004
        reach = wide * (0.92 if expression == "frown" else 0.78)
        centre = y + 0.03 - fall * 0.35
        shape = np.array([(-1, 1.0), (-0.55, 0.28), (0, 0.0), (0.55, 0.28), (1, 1.0)])
        line = shape * (reach, fall) + (0, centre)
        pen.fill("mouth", stroke(line + np.array((0, 0.007)), 0.04, 0.35), lip)
        pen.fill("mouth", stroke(line, 0.015, 0.3), mix(_THROAT, (40, 10, 20), 0.4))


def _smile(pen: Pen, wide: float, y: float, lip: Color) -> None:
    upper = np.array([(-1, -0.004), (-0.5, 0.01), (0, 0.014), (0.5, 0.01), (1, -0.004)])
    lower = np.array([(-1, -0.004), (-0.62, 0.052), (0, 0.074), (0.62, 0.052), (1, -0.004)])
    mouth = band(curve(upper * (wide, 1) + (0, y)), curve(lower * (wide, 1) + (0, y)))
    pen.fill("mouth", grow(mouth, 0.011), lip)
    pen.fill("mouth", mouth, _THROAT)
    gums = np.array([(-0.9, 0.006), (-0.5, 0.032), (0, 0.04), (0.5, 0.032), (0.9, 0.006)])
    teeth = band(curve(upper * (wide * 0.92, 1) + (0, y)), curve(gums * (wide, 1) + (0, y)))
    pen.fill("mouth", teeth, WHITE)
    pen.fill("mouth", ellipse(0, y + 0.058, wide * 0.36, 0.012), _TONGUE)


def draw_beard(pen: Pen, layout: Layout, beard: str, hair: str) -> None:
    """A moustache, a goatee or a full beard, outlined so that it shows on every skin."""
    if beard == "none":
        return
    t = tones("hair_color", hair)
    color = mix(t.base, t.shade, 0.15)
    if beard == "full":
        _full_beard(pen, layout, hair, color)
    elif beard == "goatee":
        chin = [
            (-0.36, 0.86), (-0.16, 0.88), (0, 0.8), (0.16, 0.88), (0.36, 0.86), (0.4, 1.02),
            (0.24, 1.2), (0, 1.38), (-0.24, 1.2), (-0.4, 1.02)
        ]  # fmt: skip
        tuft = loop(layout.at(np.array(chin)))
        pen.fill("beard", grow(tuft, 0.009), t.edge)
        pen.fill("beard", tuft, color)
        for u in (-0.14, 0.0, 0.14):
            hairs = np.array([(u, 0.94), (u * 0.9, 1.06), (u * 0.5, 1.22)])
            pen.fill("beard", stroke(layout.at(hairs), 0.009, 0.7), t.light)
    if beard in ("moustache", "full"):
        _moustache(pen, layout, hair, color)


def _moustache(pen: Pen, layout: Layout, hair: str, color: Color) -> None:
    t = tones("hair_color", hair)
    wing = np.array(
        [(0.0, 0.37), (0.2, 0.335), (0.42, 0.38), (0.62, 0.47), (0.76, 0.42), (0.68, 0.56),
         (0.46, 0.575), (0.22, 0.52), (0.0, 0.5)]
    )  # fmt: skip
    right = layout.at(wing)
    both = np.concatenate([curve(right), curve(mirror(right))[::-1]])
    pen.fill("beard", grow(both, 0.008), t.edge)
    pen.fill("beard", both, color)
    for s in (-1, 1):
        hairs = np.array([(0.1, 0.42), (0.32, 0.44), (0.52, 0.51)]) * (s, 1)
        pen.fill("beard", stroke(layout.at(hairs), 0.009, 0.6), t.light)


def _full_beard(pen: Pen, layout: Layout, hair: str, color: Color) -> None:
    t = tones("hair_color", hair)
    inside = np.array(
        [(-1.0, 0.0), (-0.86, 0.26), (-0.58, 0.42), (-0.3, 0.4), (0.0, 0.36), (0.3, 0.4),
         (0.58, 0.42), (0.86, 0.26), (1.0, 0.0)]
    )  # fmt: skip
    outer = layout.outline(-0.02, 1.02, 1.06, 1.16)
    shape = np.concatenate([outer, curve(layout.at(inside))])
    pen.fill("beard", grow(shape, 0.008), t.edge)
    pen.fill("beard", shape, color)
    shade = band(layout.outline(0.02, 0.5, 1.05, 1.15), layout.outline(0.02, 0.5, 0.84, 1.02))
    pen.fill("beard", shade, t.shade)
    for u, v in ((-0.62, 0.72), (-0.34, 0.98), (0.0, 1.04), (0.34, 0.98), (0.62, 0.72)):
        hairs = np.array([(u, v - 0.07), (u * 0.94, v), (u * 0.84, v + 0.06)])
        pen.fill("beard", stroke(layout.at(hairs), 0.01, 0.7), t.light)
