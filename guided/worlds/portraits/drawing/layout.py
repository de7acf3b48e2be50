"""Where everything of one person sits: the measurements that the traits of a geometry give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from guided.worlds.portraits.drawing.shapes import Points

#: The head turns around this point of the canvas.
PIVOT = (0.5, 0.72)


@lru_cache(maxsize=64)
def _outline_table(start: float, stop: float, count: int) -> tuple[Points, Points]:
    """Unit face outline [count, 2] and how strongly jaw and chin act there, [count]."""
    angle = np.pi * np.linspace(start, stop, count)
    c, s = np.cos(angle), np.sin(angle)
    unit = np.stack([np.sign(c) * np.abs(c) ** 0.86, np.sign(s) * np.abs(s) ** 0.95], 1)
    return unit, np.clip(s, 0, 1) ** 1.6


@dataclass(frozen=True)
class Layout:
    """Measurements of one head and body.

    Face units have their origin in the face's centre, u = +-1 at the cheeks and v = +-1 at crown
    and chin; other lengths are fractions of the canvas.
    """

    width: float
    height: float
    jaw: float
    chin: float
    eye_gap: float
    eye_y: float
    eye: float
    gaze: float
    nose_length: float
    nose_width: float
    mouth_y: float
    mouth: float
    brow_tilt: float
    brow: float
    ear: float
    shoulder: float
    neck: float
    centre: tuple[float, float]
    angle: float
    volume: float
    parting: float
    side: int
    light: float
    cheek: float

    def at(self, units: Points) -> Points:
        """Face units to head coordinates (fractions of the canvas, origin in the face's centre)."""
        return units * (self.width, self.height)

    def outline(
        self, start: float, stop: float, scale: float = 1.0, rise: float | None = None
    ) -> Points:
        """The face's outline scaled by (scale, rise), in head coordinates [n, 2].

        Angles are in units of pi: 0 the right cheek, 0.5 the chin, 1 the left, 1.5 the crown.
        """
        count = max(8, round(abs(stop - start) * 22))
        unit, low = _outline_table(start, stop, count)
        points = unit * (self.width * scale, self.height * (scale if rise is None else rise))
        points[:, 0] *= 1 - self.jaw * low
        points[:, 1] *= 1 + self.chin * low
        return points

    def place(self, points: Points) -> Points:
        """Head coordinates to the canvas: shifted, then turned around the neck."""
        x, y = self.centre[0] - PIVOT[0], self.centre[1] - PIVOT[1]
        c, s = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[c, s], [-s, c]])
        placed: Points = (points + np.array((x, y))) @ turn + np.array(PIVOT)
        return placed


def layout_of(geometry: Mapping[str, float]) -> Layout:
    """The measurements of a geometry: each trait of ``TRAITS`` in [-1, 1]."""
    g = geometry
    width = 0.2 + 0.015 * g["face_width"]
    height = 0.222 + 0.013 * g["face_height"]
    return Layout(
        width=width,
        height=height,
        jaw=0.12 + 0.1 * g["jaw"],
        chin=0.02 + 0.05 * g["chin"],
        eye_gap=width * (0.455 + 0.03 * g["eye_gap"]),
        eye_y=height * (-0.07 + 0.04 * g["eye_height"]),
        eye=0.0605 + 0.0045 * g["eye_size"],
        gaze=0.009 * g["gaze"],
        nose_length=0.036 + 0.013 * g["nose_length"],
        nose_width=0.026 + 0.008 * g["nose_width"],
        mouth_y=height * (0.56 + 0.03 * g["mouth_height"]),
        mouth=width * (0.43 + 0.06 * g["mouth_width"]),
        brow_tilt=0.008 * g["brow_tilt"],
        brow=0.022 + 0.004 * g["brow_thickness"],
        ear=0.041 + 0.008 * g["ear"],
        shoulder=0.375 + 0.03 * g["shoulder"],
        neck=0.084 + 0.012 * g["neck"],
        centre=(0.5 + 0.018 * g["shift_x"], 0.432 + 0.011 * g["shift_y"]),
        angle=0.075 * g["tilt"],
        volume=1 + 0.055 * g["hair_volume"],
        parting=g["parting"],
        side=1 if g["parting"] > 0 else -1,
        light=g["light"],
        cheek=g["cheek"],
    )
