"""The background, the shirt with its word, and the neck."""

from __future__ import annotations

import numpy as np

from guided.worlds.portraits.drawing.layout import Layout
from guided.worlds.portraits.drawing.letters import word
from guided.worlds.portraits.drawing.palette import INK_DARK, WHITE, Color, mix, tones
from guided.worlds.portraits.drawing.shapes import Pen, curve, ellipse, grow, stroke

_LETTER_HEIGHT = 0.109
_LETTER_STROKE = 0.0205
_SIGN_CENTRE = np.array((0.5, 0.9))
_DARK_INK_ON = frozenset({"white", "yellow", "orange"})
_SHOULDERS = np.array(
    [(-1.0, 1.08), (-0.99, 0.95), (-0.86, 0.845), (-0.56, 0.79), (-0.3, 0.745), (0.3, 0.745),
     (0.56, 0.79), (0.86, 0.845), (0.99, 0.95), (1.0, 1.08)]
)  # fmt: skip
_COLLAR = np.array([(-1.36, 0.757), (-0.94, 0.798), (0.0, 0.824), (0.94, 0.798), (1.36, 0.757)])


def draw_background(pen: Pen, layout: Layout, name: str) -> None:
    """A flat colour with a soft double halo behind the head."""
    color = tones("background", name).base
    square = np.array([(-0.02, -0.02), (1.02, -0.02), (1.02, 1.02), (-0.02, 1.02)])
    pen.fill("background", square, color)
    x = 0.5 - 0.03 * layout.light
    pen.fill("background", ellipse(x, 0.46, 0.465), mix(color, WHITE, 0.13))
    pen.fill("background", ellipse(x, 0.46, 0.405), mix(color, WHITE, 0.3))


def draw_shirt(pen: Pen, layout: Layout, name: str) -> None:
    """Shoulders with a lit and a shaded side and sleeve seams."""
    t = tones("clothing", name)
    torso = curve(_SHOULDERS * (layout.shoulder, 1.0) + (0.5, 0.0))
    pen.fill("clothing", grow(torso, 0.009), t.deep)
    pen.fill("clothing", torso, t.base)
    side = np.array(
        [(0.68, 1.08), (0.7, 0.95), (0.82, 0.83), (0.94, 0.88), (0.99, 0.95), (1, 1.08)]
    )
    for s, alpha in ((1, 0.75 + 0.2 * layout.light), (-1, 0.3 - 0.2 * layout.light)):
        sleeve = curve(side * (s * layout.shoulder, 1.0) + (0.5, 0.0))
        pen.fill("clothing", sleeve, t.shade, max(alpha, 0.1))
        seam = np.array([(0.7, 1.05), (0.705, 0.96), (0.76, 0.89)])
        pen.fill("clothing", stroke(seam * (s * layout.shoulder, 1) + (0.5, 0), 0.009, 0.5), t.deep)


def draw_neck(pen: Pen, layout: Layout, skin: str, clothing: str) -> None:
    """The neck, the chin's shadow on it, and the shirt's ribbed collar."""
    t, c = tones("skin", skin), tones("clothing", clothing)
    width, x = layout.neck, layout.centre[0]
    lean = (0.5 + (x - 0.5) * 0.3) - x
    pen.fill("clothing", ellipse(x + lean, 0.757, width * 1.36, 0.024), c.deep)
    sides = np.array(
        [(-1, 0.58), (-1, 0.7), (-1.3, 0.76), (0, 0.815), (1.3, 0.76), (1, 0.7), (1, 0.58)]
    )
    slide = np.clip((sides[:, 1:] - 0.58) / 0.17, 0, 1) * (lean, 0.0)
    pen.fill("face", curve(sides * (width, 1) + (x, 0.0) + slide), t.shade)
    shadow = curve(
        [(x - width, 0.6), (x - width, 0.665), (x, 0.705), (x + width, 0.665), (x + width, 0.6)]
    )
    pen.fill("face", shadow, mix(t.shade, t.deep, 0.4))
    collar = _COLLAR * (width, 1) + (x + lean, 0.0)
    pen.fill("clothing", stroke(collar, 0.042, 0.35), c.deep)
    pen.fill("clothing", stroke(collar, 0.027, 0.4), mix(c.base, c.light, 0.55))


def ink_on(clothing: str) -> Color:
    """The colour of a word on a shirt: dark on light shirts, nearly white on the others."""
    return INK_DARK if clothing in _DARK_INK_ON else (255, 253, 247)


def draw_sign(pen: Pen, text: str, clothing: str) -> None:
    """A word in capitals across the chest."""
    for polygon in word(text, _LETTER_HEIGHT, _LETTER_STROKE):
        pen.fill("sign", polygon + _SIGN_CENTRE, ink_on(clothing))
