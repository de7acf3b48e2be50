"""Hair behind the head: crowns, curls, buns, tails and long panels, each with a dark outline."""

from __future__ import annotations

import numpy as np

from guided.worlds.portraits.drawing.layout import Layout
from guided.worlds.portraits.drawing.palette import Color, tones
from guided.worlds.portraits.drawing.shapes import Pen, Points, curve, ellipse, grow, loop, stroke

_OUTLINE = 0.0095
_TIE: Color = (58, 190, 192)
_TAIL = np.array(
    [(0.6, -0.98), (1.12, -1.1), (1.62, -0.72), (1.86, -0.05), (1.78, 0.62), (1.5, 1.12),
     (1.36, 0.62), (1.3, 0.05), (1.12, -0.42)]
)  # fmt: skip
_BOB = np.array(
    [(0, -1.22), (0.62, -1.13), (1.1, -0.78), (1.32, -0.2), (1.4, 0.36), (1.3, 0.86), (0.9, 0.98),
     (0.0, 0.7)]
)  # fmt: skip
_LONG = np.array(
    [(0, -1.2), (0.6, -1.12), (1.06, -0.76), (1.26, -0.2), (1.34, 0.5), (1.44, 1.2), (1.36, 1.75),
     (0.9, 1.9), (0.0, 1.6)]
)  # fmt: skip
_SWEPT = np.array(
    [(-1.06, -0.02), (-1.1, -0.4), (-1.0, -0.82), (-0.66, -1.12), (-0.2, -1.22), (0.3, -1.3),
     (0.8, -1.22), (1.1, -0.92), (1.12, -0.5), (1.06, -0.02)]
)  # fmt: skip
_CURLS = np.linspace(0.84, 2.16, 12)


def tapered_crown(style: str) -> tuple[float, float]:
    """How far a style's crown stands off the face's outline: (sideways, upward) scales."""
    return {"spiky": (1.06, 1.08), "bun": (1.07, 1.09), "ponytail": (1.07, 1.09)}.get(
        style, (1.09, 1.12)
    )


def under_hat(layout: Layout, shape: Points) -> Points:
    """The shape pressed down to where every hat covers it."""
    return np.asarray(np.maximum(shape, (-np.inf, -0.7 * layout.height)))


def swept_crown(layout: Layout) -> Points:
    """The arc of short hair, left to right, combed up and over to the side of the parting."""
    arc = curve(layout.at(_SWEPT * (layout.side, 1.0)) * (1.0, layout.volume))
    return arc if layout.side > 0 else arc[::-1]


def curl_circles(layout: Layout, hat: str) -> list[Points]:
    """The balls of curly hair around the head; below the hat's edge when there is a hat."""
    circles = []
    for index, angle in enumerate(_CURLS * np.pi):
        u, v = float(np.cos(angle)) * 1.13, float(np.sin(angle)) * 1.0 + 0.02
        if hat != "none" and v < -0.52:
            continue
        radius = layout.width * (0.4 if index % 2 else 0.36) * layout.volume
        x, y = u * layout.width * layout.volume, v * layout.height * layout.volume
        circles.append(ellipse(x, y, radius))
    return circles


def _both_sides(layout: Layout, half: Points) -> Points:
    """A closed outline from its right half, top to bottom, in face units; volume applies."""
    left = half[::-1] * (-1.0, 1.0)
    first, last = (1 if half[0, 0] == 0 else 0), (1 if half[-1, 0] == 0 else 0)
    whole = np.concatenate([half, left[last : len(left) - first]])
    return loop(layout.at(whole * layout.volume))


def _silhouettes(layout: Layout, style: str, hat: str) -> list[Points]:
    sideways, upward = tapered_crown(style)
    crown = layout.outline(0.95, 2.05, sideways, upward)
    if style == "curly":
        mass = layout.outline(0.9, 2.1, 1.18 * layout.volume, 1.12 * layout.volume)
        if hat != "none":
            return [crown, *curl_circles(layout, hat)]
        return [mass, *curl_circles(layout, hat)]
    if style in ("bob", "long"):
        return [_both_sides(layout, _BOB if style == "bob" else _LONG)]
    if style == "ponytail":
        tail = loop(layout.at(_TAIL * (layout.side, 1.0)) * layout.volume) + _drop(layout, hat)
        return [tail, crown]
    if style == "short" and hat == "none":
        return [swept_crown(layout)]
    if style == "bun" and hat == "none":
        y = -layout.height * (1.36 + 0.3 * (layout.volume - 1))
        return [ellipse(0.0, y, layout.width * 0.47, layout.width * 0.4), crown]
    return [crown]


def draw_back_hair(pen: Pen, layout: Layout, style: str, color: str, hat: str) -> None:
    """Everything of the hair that the head and the shoulders are in front of."""
    if style == "bald":
        return
    t = tones("hair_color", color)
    shapes = _silhouettes(layout, style, hat)
    if hat != "none":
        crowns = shapes[1:] if style == "ponytail" else shapes
        shapes = shapes[: len(shapes) - len(crowns)] + [under_hat(layout, c) for c in crowns]
    for shape in shapes:
        pen.fill("hair", grow(shape, _OUTLINE), t.edge)
    for shape in shapes:
        pen.fill("hair", shape, t.shade)
    if style == "ponytail":
        _dress_tail(pen, layout, color, _drop(layout, hat))
    if style == "bun" and hat == "none":
        _dress_bun(pen, layout, color)


def _drop(layout: Layout, hat: str) -> Points:
    """How much lower a hat makes a ponytail start."""
    return np.array((0.0, 0.0 if hat == "none" else 0.24 * layout.height))


def _dress_tail(pen: Pen, layout: Layout, color: str, drop: Points) -> None:
    t = tones("hair_color", color)
    turn = np.array((layout.side, 1.0)) * layout.volume
    body = np.array(
        [(0.8, -0.92), (1.2, -0.98), (1.56, -0.62), (1.74, -0.05), (1.68, 0.5), (1.52, 0.86),
         (1.5, 0.3), (1.4, -0.2), (1.14, -0.6)]
    )  # fmt: skip
    pen.fill("hair", loop(layout.at(body * turn)) + drop, t.base)
    for shift in (0.0, 0.16):
        strand = np.array(
            [(1.14 + shift, -0.74), (1.44 + shift * 0.8, -0.3), (1.56 + shift * 0.6, 0.3)]
        )
        pen.fill(
            "hair",
            stroke(layout.at(strand * turn) + drop, 0.011, 0.7),
            t.light if shift else t.shade,
        )
    tie = np.array([(0.74, -1.02), (0.94, -0.7)])
    pen.fill("hair", stroke(layout.at(tie * turn) + drop, 0.032, 0.2), t.edge)
    pen.fill("hair", stroke(layout.at(tie * turn) + drop, 0.019, 0.2), _TIE)


def _dress_bun(pen: Pen, layout: Layout, color: str) -> None:
    t = tones("hair_color", color)
    y = -layout.height * (1.36 + 0.3 * (layout.volume - 1))
    wide = layout.width
    pen.fill("hair", ellipse(-0.006, y - 0.006, wide * 0.4, wide * 0.33), t.base)
    for scale in (1.0, 0.5):
        arc = np.array([(-0.26, -0.06), (-0.05, -0.2), (0.2, -0.12)]) * scale * wide + (-0.004, y)
        pen.fill("hair", stroke(arc, 0.012, 0.6), t.light if scale == 1.0 else t.shade)
    tie = np.array([(-0.34, 0.29), (0, 0.36), (0.34, 0.29)]) * wide + (0, y)
    pen.fill("hair", stroke(tie, 0.026, 0.1), t.edge)
    pen.fill("hair", stroke(tie, 0.014, 0.1), _TIE)


def draw_locks(pen: Pen, layout: Layout, style: str, color: str) -> None:
    """The panels of long hair that fall in front of the shoulders."""
    if style != "long":
        return
    t = tones("hair_color", color)
    lock = np.array(
        [(0.92, -0.3), (1.24, -0.1), (1.34, 0.5), (1.43, 1.2), (1.34, 1.72), (1.12, 1.78),
         (0.98, 1.3), (0.9, 0.6)]
    )  # fmt: skip
    strand = np.array([(1.1, 0.2), (1.16, 0.8), (1.2, 1.45)])
    for s in (-1, 1):
        turn = np.array((s, 1.0)) * (layout.volume, 1.0)
        shape = loop(layout.at(lock * turn))
        pen.fill("hair", grow(shape, _OUTLINE * 0.8), t.edge)
        pen.fill("hair", shape, t.base if s < 0 else t.shade)
        pen.fill("hair", stroke(layout.at(strand * turn), 0.011, 0.6), t.light if s < 0 else t.deep)
