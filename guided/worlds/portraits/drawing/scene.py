"""From a portrait to its display list: every shape of the picture, back to front."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from guided.worlds.portraits.attributes import Portrait
from guided.worlds.portraits.drawing.body import draw_background, draw_neck, draw_shirt, draw_sign
from guided.worlds.portraits.drawing.face import draw_beard, draw_brows, draw_eyes, draw_mouth
from guided.worlds.portraits.drawing.fringe import draw_fringe
from guided.worlds.portraits.drawing.hair import draw_back_hair, draw_locks
from guided.worlds.portraits.drawing.head import draw_ears, draw_face, draw_nose
from guided.worlds.portraits.drawing.headwear import draw_earrings, draw_glasses, draw_hat
from guided.worlds.portraits.drawing.layout import Layout, layout_of
from guided.worlds.portraits.drawing.shapes import Pen, Shape

#: The parts of a picture; their position here is their number in a part map.
PARTS = (
    "background", "hair", "face", "eyes", "brows", "nose", "mouth", "glasses", "hat", "beard",
    "earrings", "clothing", "sign",
)  # fmt: skip

Scene = tuple[Shape, ...]


def compose(portrait: Portrait) -> Scene:
    """The shapes of a portrait, back to front, in the unit square (x right, y down).

    The geometry alone decides where things sit and the attributes what is drawn there, so that
    two portraits that differ in one attribute share every shape of their other parts.
    """
    a = {key: str(value) for key, value in portrait.attributes.items()}
    layout = layout_of(portrait.geometry)
    drawn: list[tuple[Shape, bool]] = []
    head, body = Pen(drawn, tilted=True), Pen(drawn, tilted=False)
    draw_background(body, layout, a["background"])
    draw_back_hair(head, layout, a["hair_style"], a["hair_color"], a["hat"])
    draw_shirt(body, layout, a["clothing"])
    draw_neck(body, layout, a["skin"], a["clothing"])
    draw_locks(head, layout, a["hair_style"], a["hair_color"])
    if a["sign"] != "none":
        draw_sign(body, a["sign"], a["clothing"])
    draw_ears(head, layout, a["skin"])
    draw_face(head, layout, a["skin"])
    draw_beard(head, layout, a["beard"], a["hair_color"])
    draw_nose(head, layout, a["skin"])
    draw_mouth(head, layout, a["skin"], a["expression"])
    draw_eyes(head, layout, a["eyes"], a["expression"])
    draw_fringe(head, layout, a["hair_style"], a["hair_color"], a["hat"])
    draw_brows(head, layout, a["hair_color"], a["expression"])
    draw_hat(head, layout, a["hat"], portrait.attributes["hat_color"])
    draw_glasses(head, layout, a["glasses"])
    draw_earrings(head, layout, a["earrings"])
    return _placed(drawn, layout)


def _placed(drawn: list[tuple[Shape, bool]], layout: Layout) -> Scene:
    """All shapes on the canvas: those of the head shifted and tilted with it, in one product."""
    tilted = [shape.polygon for shape, with_head in drawn if with_head]
    moved = iter(
        np.split(layout.place(np.concatenate(tilted)), np.cumsum([len(p) for p in tilted])[:-1])
    )
    return tuple(
        replace(shape, polygon=next(moved)) if with_head else shape for shape, with_head in drawn
    )
