"""Hair in front of the face: the crown with its hairline, sideburns, spikes and front curls."""

from __future__ import annotations

import numpy as np

from guided.worlds.portraits.drawing.hair import curl_circles, swept_crown, tapered_crown, under_hat
from guided.worlds.portraits.drawing.layout import Layout
from guided.worlds.portraits.drawing.palette import tones
from guided.worlds.portraits.drawing.shapes import (
    Pen,
    Points,
    band,
    curve,
    ellipse,
    grow,
    loop,
    stroke,
)

_PANEL = np.array(
    [(0.86, -0.4), (1.16, -0.3), (1.28, 0.3), (1.2, 0.8), (1.0, 0.88), (0.86, 0.72), (0.88, 0.2)]
)
# Hairlines in face units, from the right temple to the left one.
_BANGS = np.array(
    [(0.9, 0.3), (0.84, -0.2), (0.7, -0.52), (0.3, -0.57), (0.0, -0.58), (-0.3, -0.57),
     (-0.7, -0.52), (-0.84, -0.2), (-0.9, 0.3)]
)  # fmt: skip
_CURTAIN = np.array(
    [(0.98, 0.4), (0.9, -0.06), (0.74, -0.44), (0.16, -0.76), (0.0, -0.88), (-0.16, -0.76),
     (-0.74, -0.44), (-0.9, -0.06), (-0.98, 0.4)]
)  # fmt: skip
_COMBED = np.array(
    [(1.06, -0.02), (0.99, 0.16), (0.9, 0.12), (0.84, -0.28), (0.72, -0.5), (0.36, -0.56),
     (-0.1, -0.5), (-0.42, -0.56), (-0.6, -0.74), (-0.76, -0.44), (-0.85, -0.26), (-0.9, 0.12),
     (-0.99, 0.16), (-1.06, -0.02)]
)  # fmt: skip
_OPEN = np.array(
    [(1.0, 0.18), (0.86, 0.16), (0.72, -0.3), (0.62, -0.6), (0.3, -0.72), (0.0, -0.76),
     (-0.3, -0.72), (-0.62, -0.6), (-0.72, -0.3), (-0.86, 0.16), (-1.0, 0.18)]
)  # fmt: skip
_SPIKY = np.where(_OPEN[:, 1:] < -0.6, _OPEN * (1.0, 0.2) + (0.0, -0.49), _OPEN)
_CURTAIN_PART = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0]) * 0.34
_OPEN_PART = np.array([0, 0, 0, 0, 0.6, 1, 0.6, 0, 0, 0, 0])


def _hairline(layout: Layout, style: str, hat: str) -> Points:
    """The hairline in head coordinates, from the right temple to the left one."""
    if style == "bob":
        line = _BANGS
    elif style == "long":
        line = _CURTAIN + np.stack([_CURTAIN_PART * layout.parting, 0 * _CURTAIN_PART], 1)
    elif style == "short" and hat == "none":
        line = _COMBED if layout.side > 0 else _COMBED[::-1] * (-1.0, 1.0)
    elif style == "ponytail":
        shift = -0.3 * layout.side - 0.1 * layout.parting
        line = _OPEN + np.stack([_OPEN_PART * shift, -0.04 * _OPEN_PART], 1)
    else:
        line = _SPIKY if style == "spiky" else _OPEN
    return curve(layout.at(line), 6)


def _crown(layout: Layout, style: str, hat: str) -> Points:
    """The outer arc of the front hair, from the left temple over the top to the right one."""
    if style in ("bob", "long"):
        high = 1.17 if hat == "none" else 1.1
        return layout.outline(0.91, 2.09, 1.14 * layout.volume, high * layout.volume)
    if style == "short" and hat == "none":
        return swept_crown(layout)
    sideways, upward = tapered_crown(style)
    return layout.outline(0.96, 2.04, sideways, upward)


def draw_fringe(pen: Pen, layout: Layout, style: str, color: str, hat: str) -> None:
    """The front hair of a style; a hat, drawn later, covers its top."""
    if style == "bald":
        return
    t = tones("hair_color", color)
    shape = np.concatenate([_crown(layout, style, hat), _hairline(layout, style, hat)])
    if hat != "none":
        shape = under_hat(layout, shape)
    panels = _side_panels(layout) if style == "bob" else []
    for piece in (*panels, shape):
        pen.fill("hair", grow(piece, 0.005), t.deep)
    if style == "spiky" and hat == "none":
        _spikes(pen, layout, color)
    for piece in (*panels, shape):
        pen.fill("hair", piece, t.base)
    if panels:
        _dress_panels(pen, layout, color)
    if style == "curly":
        _front_curls(pen, layout, color, hat)
    elif style == "short" and hat == "none":
        _sweep(pen, layout, color)
    elif hat == "none":
        _gloss(pen, layout, style, color)


def _sweep(pen: Pen, layout: Layout, color: str) -> None:
    """Strands of short hair, combed over."""
    t = tones("hair_color", color)
    turn = np.array((layout.side, 1.0))
    under = [
        (1.04, -0.3),
        (1.1, -0.9),
        (0.5, -0.76),
        (-0.2, -0.62),
        (0.3, -0.58),
        (0.72, -0.52),
        (0.86, -0.28),
    ]
    pen.fill("hair", loop(layout.at(np.array(under) * turn)), t.shade)
    for line in (
        [(-0.5, -0.7), (0.0, -0.82), (0.62, -0.98)],
        [(-0.7, -0.62), (-0.66, -0.84), (-0.4, -1.0)],
    ):
        pen.fill("hair", stroke(layout.at(np.array(line) * turn), 0.011, 0.7), t.shade)
    shine = [(-0.86, -0.6), (-0.62, -0.98), (-0.1, -1.1), (0.4, -1.14)]
    pen.fill("hair", stroke(layout.at(np.array(shine) * turn), 0.02, 0.8), t.light)


def _gloss(pen: Pen, layout: Layout, style: str, color: str) -> None:
    t = tones("hair_color", color)
    sideways, upward = (1.03, 1.06) if style in ("bob", "long") else (0.95, 0.97)
    shade = band(
        layout.outline(1.7, 1.98, sideways + 0.08, upward + 0.09),
        layout.outline(1.7, 1.98, sideways - 0.05, upward - 0.02),
    )
    pen.fill("hair", shade, t.shade)
    pen.fill(
        "hair",
        stroke(layout.outline(1.2, 1.46, sideways - 0.02, upward - 0.03)[::2], 0.02, 0.75),
        t.light,
    )
    pen.fill("hair", stroke(layout.outline(1.12, 1.17, sideways, upward)[::3], 0.016, 0.6), t.light)


def _side_panels(layout: Layout) -> list[Points]:
    """The two halves of a bob beside the face."""
    turn = np.array((layout.volume, 1.0))
    return [loop(layout.at(_PANEL * turn)), loop(layout.at(_PANEL * (-turn[0], 1.0)))]


def _dress_panels(pen: Pen, layout: Layout, color: str) -> None:
    t = tones("hair_color", color)
    shade = np.array(
        [(1.1, -0.2), (1.2, 0.0), (1.26, 0.35), (1.19, 0.76), (1.02, 0.85), (1.12, 0.5)]
    )
    pen.fill("hair", loop(layout.at(shade * (layout.volume, 1.0))), t.shade)
    for s in (-1, 1):
        line = np.array([(1.03, 0.0), (1.07, 0.4), (1.02, 0.7)]) * (s * layout.volume, 1.0)
        pen.fill("hair", stroke(layout.at(line), 0.011, 0.6), t.light if s < 0 else t.deep)


def _spikes(pen: Pen, layout: Layout, color: str) -> None:
    t = tones("hair_color", color)
    count = 7
    angles = np.linspace(1.04, 1.96, count)
    shapes = []
    for angle in angles:
        root_left = layout.outline(angle - 0.1, angle - 0.099, 0.98)[0]
        root_right = layout.outline(angle + 0.1, angle + 0.101, 0.98)[0]
        lean = angle + 0.03 * layout.parting
        tip = layout.outline(lean, lean + 0.001, 1.4 * layout.volume, 1.38 * layout.volume)[0]
        shapes.append(
            np.array(
                [
                    root_left,
                    root_left * 0.45 + tip * 0.55,
                    tip,
                    root_right * 0.45 + tip * 0.55,
                    root_right,
                ]
            )
        )
    for shape in shapes:
        pen.fill("hair", grow(shape, 0.0095), t.edge)
    for index, shape in enumerate(shapes):
        pen.fill("hair", shape, t.base if index < count // 2 + 1 else t.shade)


def _front_curls(pen: Pen, layout: Layout, color: str, hat: str) -> None:
    t = tones("hair_color", color)
    circles = curl_circles(layout, hat)
    for circle in circles:
        centre = circle.mean(0)
        pen.fill("hair", centre + (circle - centre) * 0.86 - (0.003, 0.003), t.base)
    if hat == "none":
        for u, v, r in (
            (-0.62, -0.82, 0.27),
            (-0.2, -0.9, 0.29),
            (0.24, -0.9, 0.28),
            (0.64, -0.8, 0.26),
        ):
            x, y = u * layout.width, v * layout.height
            pen.fill("hair", ellipse(x, y, layout.width * (r + 0.05)), t.shade)
            pen.fill("hair", ellipse(x - 0.002, y - 0.003, layout.width * r), t.base)
            circles.append(ellipse(x, y, layout.width * r))
    for circle in circles:
        x, y = circle.mean(0)
        r = float(circle[0, 0] - x)
        arc = np.array([(-0.5, 0.0), (-0.28, -0.42), (0.2, -0.5)]) * r + (x, y)
        pen.fill("hair", stroke(arc, 0.011, 0.6), t.light)
