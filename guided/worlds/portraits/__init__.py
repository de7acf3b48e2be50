"""The drawn world of portraits: attributes, splits, pictures, maps of their parts."""

from __future__ import annotations

from guided.worlds.portraits.attributes import (
    KEYS,
    SIGN_WORDS,
    UNSEEN_WORDS,
    VALUES,
    Portrait,
    from_latent,
    visible,
)
from guided.worlds.portraits.drawing.raster import draw, part_boxes, part_map, part_masks, rasterize
from guided.worlds.portraits.drawing.scene import PARTS, Scene, compose
from guided.worlds.portraits.drawing.shapes import Shape
from guided.worlds.portraits.drawing.sheet import sheet
from guided.worlds.portraits.splits import HELD_OUT_PAIRS, held_out_pairs_of, latent_of, sample

__all__ = [
    "HELD_OUT_PAIRS",
    "KEYS",
    "PARTS",
    "Portrait",
    "SIGN_WORDS",
    "Scene",
    "Shape",
    "UNSEEN_WORDS",
    "VALUES",
    "compose",
    "draw",
    "from_latent",
    "held_out_pairs_of",
    "latent_of",
    "part_boxes",
    "part_map",
    "part_masks",
    "rasterize",
    "sample",
    "sheet",
    "visible",
]
