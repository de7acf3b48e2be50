"""A display list to pixels: pictures with smooth edges, and exact maps of the parts."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from guided.worlds.portraits.attributes import Portrait
from guided.worlds.portraits.drawing.scene import PARTS, Scene, compose

SMALLEST, LARGEST = 32, 1024
#: Shapes fainter than this (lens tints, soft shadows) do not own the pixels they lie on.
_OWNS = 0.5
#: Part maps are painted this much larger (an odd number) and read at the centre of each pixel.
_FINER = 3


def _expect_size(size: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(
            f"a portrait cannot be {size} pixels wide; choose a size from {SMALLEST} to {LARGEST}"
        )


def _vertices(scene: Scene, scale: int) -> list[list[float]]:
    """Each polygon's flat list x0, y0, x1, y1, ... in pixels, pixel centres at whole numbers."""
    flat = (np.concatenate([s.polygon for s in scene]) * scale - 0.5).ravel().tolist()
    lists, start = [], 0
    for shape in scene:
        stop = start + 2 * len(shape.polygon)
        lists.append(flat[start:stop])
        start = stop
    return lists


def _supersampling(size: int) -> int:
    return max(2, -(-512 // size))


def rasterize(scene: Scene, size: int) -> np.ndarray:
    """The picture [size, size, 3], uint8 sRGB: painted several times larger, then box-averaged.

    Raises:
        ValueError: a size outside [32, 1024].
    """
    return np.asarray(_painted(scene, size))


def _painted(scene: Scene, size: int) -> Image.Image:
    _expect_size(size)
    factor = _supersampling(size)
    large = Image.new("RGB", (size * factor, size * factor))
    solid = ImageDraw.Draw(large)
    glaze = ImageDraw.Draw(large, "RGBA")
    for shape, vertices in zip(scene, _vertices(scene, size * factor), strict=True):
        if shape.alpha >= 1:
            solid.polygon(vertices, fill=shape.color)
        else:
            glaze.polygon(vertices, fill=(*shape.color, round(255 * shape.alpha)))
    return large.reduce(factor)


def draw(portrait: Portrait, size: int = 128) -> Image.Image:
    """The picture of a portrait, an RGB image of ``size`` by ``size`` pixels.

    Raises:
        ValueError: a size outside [32, 1024].
    """
    return _painted(compose(portrait), size)


def part_map(scene: Scene, size: int) -> np.ndarray:
    """Which part each pixel shows, [size, size] uint8 of positions in ``PARTS``.

    A pixel belongs to the part at its centre; edges are hard.

    Raises:
        ValueError: a size outside [32, 1024].
    """
    _expect_size(size)
    canvas = Image.new("L", (size * _FINER, size * _FINER))
    pen = ImageDraw.Draw(canvas)
    for shape, vertices in zip(scene, _vertices(scene, size * _FINER), strict=True):
        if shape.alpha >= _OWNS:
            pen.polygon(vertices, fill=PARTS.index(shape.part))
    middle = slice(_FINER // 2, None, _FINER)
    return np.asarray(canvas)[middle, middle].copy()


def part_masks(scene: Scene, size: int) -> dict[str, np.ndarray]:
    """The visible pixels of each part that shows, name -> [size, size] bool.

    Raises:
        ValueError: a size outside [32, 1024].
    """
    owners = part_map(scene, size)
    return {PARTS[number]: owners == number for number in np.unique(owners)}


def part_boxes(scene: Scene, size: int) -> dict[str, tuple[int, int, int, int]]:
    """The box (x0, y0, x1, y1) in pixels around each part that shows; x1 and y1 are exclusive.

    Raises:
        ValueError: a size outside [32, 1024].
    """
    boxes = {}
    for part, mask in part_masks(scene, size).items():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes[part] = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return boxes
