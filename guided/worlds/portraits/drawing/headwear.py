"""Things worn on the head: hats, glasses and earrings."""

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
    ring,
    stroke,
)

_FRAME: Color = (34, 28, 44)
_LENS: Color = (24, 22, 34)
_INK_RIBBON: Color = (52, 44, 64)
_RED_RIBBON: Color = (206, 48, 62)
_GOLD: Color = (255, 200, 40)
_GOLD_EDGE: Color = (138, 82, 10)


def draw_hat(pen: Pen, layout: Layout, hat: str, color: str | None) -> None:
    """A beanie, a cap or a top hat; nothing for "none"."""
    if hat == "none" or color is None:
        return
    {"beanie": _beanie, "cap": _cap, "tophat": _tophat}[hat](pen, layout, color)


def _beanie(pen: Pen, layout: Layout, color: str) -> None:
    t = tones("hat_color", color)
    wide, high = layout.width, layout.height
    pom = (0.0, -high * 1.43)
    pen.fill("hat", ellipse(*pom, wide * 0.275), t.edge)
    pen.fill("hat", ellipse(*pom, wide * 0.23), mix(t.base, t.light, 0.8))
    dome = layout.outline(1.14, 1.86, 1.2, 1.27) - (0, high * 0.1)
    pen.fill("hat", grow(dome, 0.009), t.edge)
    pen.fill("hat", dome, t.base)
    pen.fill(
        "hat",
        band(layout.outline(1.62, 1.86, 1.19, 1.28), layout.outline(1.62, 1.86, 1.0, 1.1))
        - (0, high * 0.1),
        t.shade,
    )
    for u in (-0.62, -0.22, 0.22, 0.62):
        rib = np.array([(u, -0.86), (u * 0.86, -1.14), (u * 0.5, -1.32)])
        pen.fill("hat", stroke(layout.at(rib), 0.008, 0.5), t.shade)
    cuff = np.array(
        [(-1.28, -0.84), (-0.7, -0.93), (0, -0.96), (0.7, -0.93), (1.28, -0.84), (1.3, -0.64),
         (1.25, -0.47), (0.7, -0.57), (0, -0.6), (-0.7, -0.57), (-1.25, -0.47), (-1.3, -0.64)]
    )  # fmt: skip
    outline = loop(layout.at(cuff))
    pen.fill("hat", grow(outline, 0.009), t.edge)
    pen.fill("hat", outline, mix(t.base, t.light, 0.45))
    for u in np.linspace(-1.05, 1.05, 8):
        lift = 0.09 * u * u
        rib = np.array([(u, -0.88 + lift), (u * 0.99, -0.65 + lift)])
        pen.fill("hat", stroke(layout.at(rib), 0.009), t.shade)


def _cap(pen: Pen, layout: Layout, color: str) -> None:
    t = tones("hat_color", color)
    wide, high, s = layout.width, layout.height, layout.side
    dome = layout.outline(0.98, 2.02, 1.19, 1.24) - (0, high * 0.1)
    base = np.array([(1.19, -0.52), (0.6, -0.6), (0, -0.62), (-0.6, -0.6), (-1.19, -0.52)])
    shell = np.concatenate([dome[dome[:, 1] < -0.52 * high], curve(layout.at(base))])
    pen.fill("hat", ellipse(0, -high * 1.34, 0.022, 0.015), t.edge)
    pen.fill("hat", grow(shell, 0.009), t.edge)
    pen.fill("hat", shell, t.base)
    panel = [
        (-0.5, -0.64),
        (-0.48, -1.0),
        (-0.3, -1.24),
        (0, -1.31),
        (0.3, -1.24),
        (0.48, -1.0),
        (0.5, -0.64),
    ]
    front = curve(layout.at(np.array(panel) * (1, 1) + (0.22 * s, 0)))
    pen.fill("hat", front, mix(t.base, t.light, 0.5))
    logo = ellipse(0.22 * s * wide, -0.97 * high, wide * 0.17, high * 0.13)
    pen.fill("hat", grow(logo, 0.006), t.deep)
    pen.fill("hat", logo, t.base)
    brim = [
        (-0.82, -0.62), (-0.3, -0.76), (0.4, -0.8), (1.1, -0.72), (1.78, -0.5), (1.7, -0.36),
        (1.1, -0.42), (0.4, -0.54), (-0.3, -0.56), (-0.78, -0.53)
    ]  # fmt: skip
    visor = loop(layout.at(np.array(brim) * (s, 1)))
    pen.fill("hat", grow(visor, 0.009), t.edge)
    pen.fill("hat", visor, t.shade)
    shine = np.array([(-0.3, -0.7), (0.4, -0.71), (1.1, -0.61)]) * (s, 1)
    pen.fill("hat", stroke(layout.at(shine), 0.011, 0.6), mix(t.base, t.light, 0.3))


def _tophat(pen: Pen, layout: Layout, color: str) -> None:
    t = tones("hat_color", color)
    wide, high = layout.width, layout.height
    ribbon = _RED_RIBBON if color in ("black", "purple", "blue") else _INK_RIBBON
    brim = ellipse(0, -high * 0.66, wide * 1.46, high * 0.135)
    pen.fill("hat", grow(brim, 0.009), t.edge)
    pen.fill("hat", brim, t.base)
    pen.fill("hat", ellipse(0, -high * 0.62, wide * 1.34, high * 0.08), t.shade)
    top = ellipse(0, -high * 1.5, wide * 0.95, high * 0.09)
    tube = _tube(layout, (-0.86, 0.86), (-0.95, 0.95), -0.72)
    pen.fill("hat", grow(top, 0.009), t.edge)
    pen.fill("hat", grow(tube, 0.009), t.edge)
    pen.fill("hat", tube, t.base)
    pen.fill("hat", _tube(layout, (0.4, 0.86), (0.44, 0.95), -0.72), t.shade)
    shine = layout.at(np.array([(-0.66, -0.8), (-0.72, -1.5), (-0.52, -1.5), (-0.47, -0.8)]))
    pen.fill("hat", shine, mix(t.base, t.light, 0.6))
    pen.fill("hat", top, mix(t.base, t.light, 0.7))
    bottom = _rim((-0.86, 0.86), -0.72)
    strip = band(layout.at(bottom), layout.at(bottom * (1.022, 1.0) - (0.0, 0.25)))
    pen.fill("hat", strip, ribbon)


def _rim(across: tuple[float, float], v: float) -> Points:
    """The front edge of a round brim in face units: an arc that hangs lowest in the middle."""
    u = np.linspace(*across, 9)
    return np.stack([u, v + 0.09 * np.sqrt(np.clip(1 - (u / 0.96) ** 2, 0, 1))], 1)


def _tube(layout: Layout, low: tuple[float, float], high: tuple[float, float], v: float) -> Points:
    """The tall part of a top hat between the (left, right) ends of its foot and of its top."""
    top = np.array([(high[1], -1.5), (high[0], -1.5)])
    return layout.at(np.concatenate([_rim(low, v), top]))


def draw_glasses(pen: Pen, layout: Layout, glasses: str) -> None:
    """Round, square or dark glasses; nothing for "none"."""
    if glasses == "none":
        return
    eye, y = layout.eye, layout.eye_y
    reach, tall, power = {
        "round": (1.42, 1.42, 2.0),
        "square": (1.46, 1.12, 9.0),
        "sunglasses": (1.5, 1.22, 3.2),
    }[glasses]
    wide, high = eye * reach, eye * tall
    gap = max(layout.eye_gap, wide + 0.006)
    for s in (-1, 1):
        arm = [
            (s * (gap + wide * 0.9), y - 0.01),
            (s * (max(layout.width, gap + wide) + 0.012), y - 0.014),
        ]
        pen.fill("glasses", stroke(arm, 0.019), _FRAME)
    bridge = [(-(gap - wide * 0.92), y - 0.006), (0, y - 0.02), (gap - wide * 0.92, y - 0.006)]
    pen.fill("glasses", stroke(bridge, 0.018), _FRAME)
    for s in (-1, 1):
        outer = ellipse(s * gap, y, wide + 0.008, high + 0.008, power)
        if glasses == "sunglasses":
            _dark_lens(pen, (s * gap, y), (wide, high))
            continue
        inner = ellipse(s * gap, y, wide - 0.012, high - 0.012, power)
        pen.fill("glasses", inner, (215, 238, 255), 0.07)
        glint = np.array([(-0.66, -0.12), (-0.36, -0.6)]) * (wide, high) + (s * gap, y)
        pen.fill("glasses", stroke(glint, 0.011), WHITE, 0.4)
        pen.fill("glasses", ring(outer, inner), _FRAME)


def _dark_lens(pen: Pen, centre: tuple[float, float], size: tuple[float, float]) -> None:
    x, y = centre
    wide, high = size
    pen.fill("glasses", ellipse(x, y, wide + 0.008, high + 0.008, 3.2), _FRAME)
    pen.fill("glasses", ellipse(x, y, wide * 0.93, high * 0.92, 3.2), _LENS)
    pen.fill("glasses", ellipse(x, y + high * 0.42, wide * 0.72, high * 0.34, 3.0), (58, 54, 84))
    glint = np.array([(-0.55, -0.05), (-0.2, -0.62), (0.08, -0.62), (-0.32, 0.12)])
    pen.fill("glasses", glint * (wide, high) + (x, y), (150, 160, 196))


def draw_earrings(pen: Pen, layout: Layout, earrings: str) -> None:
    """Golden hoops below the ears, in front of any hair; nothing for "none"."""
    if earrings == "none":
        return
    for s in (-1, 1):
        x, y = s * (layout.width * 1.01 + 0.012), 0.012 + layout.ear * 1.05
        hoop = ellipse(x, y + 0.038, 0.035, 0.039)
        hole = ellipse(x, y + 0.039, 0.021, 0.025)
        pen.fill("earrings", ring(grow(hoop, 0.006), grow(hole, -0.005)), _GOLD_EDGE)
        pen.fill("earrings", ring(hoop, hole), _GOLD)
        pen.fill(
            "earrings",
            stroke([(x - 0.026, y + 0.03), (x - 0.02, y + 0.018)], 0.007),
            (255, 240, 170),
        )
        pen.fill("earrings", ellipse(x, y, 0.014), _GOLD_EDGE)
        pen.fill("earrings", ellipse(x, y, 0.0095), (255, 226, 110))
