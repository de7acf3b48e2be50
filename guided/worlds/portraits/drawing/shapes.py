"""Polygons of a flat drawing: ellipses, smooth curves, tapered strokes, and a pen to collect them.

Coordinates are floats, x to the right and y down. Every function returns vertices [n, 2]. The
tables that depend on counts alone are computed once, so a portrait's hundred curves cost a few
small matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from guided.worlds.portraits.drawing.palette import Color

Points = np.ndarray
PointsLike = np.ndarray | Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Shape:
    """One filled polygon: its part's name, vertices [n, 2] in the unit square, colour, opacity."""

    part: str
    polygon: Points
    color: Color
    alpha: float


@lru_cache(maxsize=64)
def _unit_superellipse(power: float, count: int) -> Points:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack(
        [np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)], 1
    )


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float | None = None, power: float = 2.0
) -> Points:
    """A superellipse around (x, y): power 2 is an ellipse, larger powers tend to a rectangle."""
    radius_y = radius_x if radius_y is None else radius_y
    count = 24 if max(radius_x, radius_y) < 0.03 else 44
    unit = _unit_superellipse(power, count)
    return np.asarray(unit * (radius_x, radius_y) + np.array((x, y)))


def _catmull_rom(count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and derivative weights [segments * steps, count] on padded control points."""
    t = np.linspace(0, 1, steps, endpoint=False)
    value = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1
    )
    slope = 0.5 * np.stack(
        [-1 + 4 * t - 3 * t**2, -10 * t + 9 * t**2, 1 + 8 * t - 9 * t**2, -2 * t + 3 * t**2], 1
    )
    segments = count - 3
    weights = np.zeros((2, segments * steps, count))
    for segment in range(segments):
        rows = slice(segment * steps, (segment + 1) * steps)
        weights[0, rows, segment : segment + 4] = value
        weights[1, rows, segment : segment + 4] = slope
    return weights[0], weights[1]


@lru_cache(maxsize=128)
def _open_weights(count: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    pad = np.zeros((count + 2, count))
    pad[1:-1] = np.eye(count)
    pad[0, 0] = pad[-1, -1] = 1
    value, slope = _catmull_rom(count + 2, steps)
    last, last_slope = np.zeros((1, count)), np.zeros((1, count))
    last[0, -1] = 1
    last_slope[0, -2:] = (-0.5, 0.5)
    return np.concatenate([value @ pad, last]), np.concatenate([slope @ pad, last_slope])


@lru_cache(maxsize=128)
def _closed_weights(count: int, steps: int) -> np.ndarray:
    pad = np.concatenate([np.eye(count)[-1:], np.eye(count), np.eye(count)[:2]])
    return np.asarray(_catmull_rom(count + 3, steps)[0] @ pad)


def curve(points: PointsLike, steps: int = 7) -> Points:
    """An open Catmull-Rom curve through the points. Source: Catmull and Rom 1974."""
    control = np.asarray(points, dtype=np.float64)
    smooth: Points = _open_weights(len(control), steps)[0] @ control
    return smooth


def loop(points: PointsLike, steps: int = 7) -> Points:
    """A closed Catmull-Rom curve through the points."""
    control = np.asarray(points, dtype=np.float64)
    smooth: Points = _closed_weights(len(control), steps) @ control
    return smooth


@lru_cache(maxsize=256)
def _stroke_plan(
    count: int, steps: int, taper: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Curve and slope weights; sample index, and offsets along normal and tangent, per vertex."""
    value, slope = _open_weights(count, steps)
    samples = len(value)
    half = 0.5 * (1 - taper * np.linspace(-1, 1, samples) ** 2)
    cap = np.linspace(np.pi / 2, -np.pi / 2, 7)
    index = np.arange(samples)
    order = np.concatenate([index, np.full(7, samples - 1), index[::-1], np.full(7, 0)])
    along_normal = np.concatenate([np.ones(samples), np.sin(cap), -np.ones(samples), -np.sin(cap)])
    along_tangent = np.concatenate(
        [np.zeros(samples), np.cos(cap), np.zeros(samples), -np.cos(cap)]
    )
    width = half[order]
    return value, slope, order, (along_normal * width)[:, None], (along_tangent * width)[:, None]


def stroke(points: PointsLike, width: float, taper: float = 0.0, steps: int = 5) -> Points:
    """A curve drawn with a round pen; the ends are ``1 - taper`` times as wide as the middle."""
    control = np.asarray(points, dtype=np.float64)
    if len(control) == 2:
        steps = 1
    value, slope, order, normal, tangent = _stroke_plan(len(control), steps, taper)
    direction = slope @ control
    direction /= np.sqrt(np.einsum("ij,ij->i", direction, direction) + 1e-18)[:, None]
    outward = direction[:, ::-1] * (-1.0, 1.0)
    path = value @ control
    pen: Points = normal * outward[order] + tangent * direction[order]
    return np.asarray(path[order] + width * pen)


def ring(outer: Points, inner: Points) -> Points:
    """The area between two closed outlines, as one polygon with a seam."""
    return np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])


def band(first: Points, second: Points) -> Points:
    """The area between two open curves that run the same way."""
    return np.concatenate([first, second[::-1]])


def grow(points: Points, amount: float) -> Points:
    """The outline pushed outward along its normals; for simple shapes and small amounts."""
    tangent = np.roll(points, -1, 0) - np.roll(points, 1, 0)
    length = np.sqrt(np.einsum("ij,ij->i", tangent, tangent) + 1e-18)[:, None]
    x, y = points[:, 0], points[:, 1]
    area = float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
    sign = math.copysign(1.0, area) * amount
    return np.asarray(points + tangent[:, ::-1] * (sign, -sign) / length)


def mirror(points: PointsLike) -> Points:
    """The points with x turned to -x."""
    return np.asarray(points, dtype=np.float64) * (-1.0, 1.0)


class Pen:
    """Collects shapes; what the head pen draws is tilted and shifted with the head at the end."""

    def __init__(self, strokes: list[tuple[Shape, bool]], *, tilted: bool) -> None:
        """Write to a list of (shape, tilted) that several pens may share."""
        self._strokes = strokes
        self._tilted = tilted

    def fill(self, part: str, points: Points, color: Color, alpha: float = 1.0) -> None:
        """Paint a polygon [n, 2] over everything so far; opacity ``alpha`` in (0, 1]."""
        self._strokes.append((Shape(part, points, color, alpha), self._tilted))
