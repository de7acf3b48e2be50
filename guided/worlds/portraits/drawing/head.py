"""The head itself: ears, the face's skin with its shading, cheeks and the nose."""

from __future__ import annotations

import numpy as np

from guided.worlds.portraits.drawing.layout import Layout
from guided.worlds.portraits.drawing.palette import mix, tones
from guided.worlds.portraits.drawing.shapes import Pen, band, curve, ellipse, grow, stroke


def draw_ears(pen: Pen, layout: Layout, skin: str) -> None:
    """Both ears, with the shell's hollow."""
    t = tones("skin", skin)
    for s in (-1, 1):
        x = s * (layout.width * 1.01)
        pen.fill("face", ellipse(x, 0.012, layout.ear * 0.86, layout.ear * 1.22), t.deep)
        pen.fill("face", ellipse(x, 0.012, layout.ear * 0.7, layout.ear * 1.05), t.base)
        pen.fill(
            "face", ellipse(x + s * 0.002, 0.014, layout.ear * 0.38, layout.ear * 0.66), t.shade
        )


def draw_face(pen: Pen, layout: Layout, skin: str) -> None:
    """The skin of the face, shaded on the side away from the light, with rosy cheeks."""
    t = tones("skin", skin)
    face = layout.outline(0.0, 2.0)
    pen.fill("face", grow(face[:-1], 0.006), mix(t.shade, t.deep, 0.45))
    pen.fill("face", face, t.base)
    inner = 0.87 - 0.04 * layout.light
    crescent = band(layout.outline(-0.42, 0.5), layout.outline(-0.42, 0.5, inner, 1.0))
    pen.fill("face", crescent, mix(t.base, t.shade, 0.8))
    blush = mix(t.base, (255, 70, 88), 0.26 + 0.08 * layout.cheek)
    for s in (-1, 1):
        x, y = s * layout.width * 0.62, layout.height * 0.37
        pen.fill("face", ellipse(x, y, layout.width * 0.2, layout.height * 0.105), blush)


def draw_nose(pen: Pen, layout: Layout, skin: str) -> None:
    """A small nose: a shaded flank and the line under its tip."""
    t = tones("skin", skin)
    wide, y = layout.nose_width, layout.height * 0.26
    top = y - layout.nose_length
    flank = [
        (0.0, top),
        (wide * 0.5, y - 0.014),
        (wide * 0.95, y + 0.002),
        (0.0, y + 0.012),
        (-wide * 0.2, y),
    ]
    pen.fill("nose", curve(flank, 4), t.shade)
    wings = [
        (-wide, y - 0.002),
        (-wide * 0.45, y + 0.011),
        (0, y + 0.009),
        (wide * 0.45, y + 0.011),
        (wide, y - 0.002),
    ]
    pen.fill("nose", stroke(np.array(wings), 0.013, 0.35), mix(t.deep, t.shade, 0.25))
