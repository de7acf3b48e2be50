"""A face out of a photograph and back into it: FFHQ's alignment from four points, and pasting.

The aligned picture is a square of the photograph, turned so that the eyes are level.
Source: Karras et al. 2019 (StyleGAN, arXiv 1812.04948), appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from guided.core.reading import read_json
from guided.errors import ImageError, UsageError

Point = tuple[float, float]
Matrix = tuple[float, float, float, float, float, float]
Paste = Literal["replace", "difference"]
_FINEST = 4  # how many samples across one pixel of the aligned picture at most
_ORDER = "left eye, right eye, left mouth corner, right mouth corner (left as seen in the picture)"


@dataclass(frozen=True)
class Landmarks:
    """Four points of a face in pixels, (0, 0) the centre of the top left one; left as seen."""

    left_eye: Point
    right_eye: Point
    left_mouth: Point
    right_mouth: Point

    @classmethod
    def of(cls, numbers: Sequence[Any]) -> Landmarks:
        """From 8 numbers or 4 points, 5 points (with the nose third) or dlib's 68 points.

        Raises:
            UsageError: another number of points, something that is no number, or points that are
                no upright face.

        >>> Landmarks.of([40, 50, 80, 50, 45, 90, 75, 90]).right_eye
        (80.0, 50.0)
        """
        points = _points(numbers)
        if len(points) == 5:
            points = [points[0], points[1], points[3], points[4]]
        elif len(points) == 68:
            points = [_mean(points[36:42]), _mean(points[42:48]), points[48], points[54]]
        if len(points) != 4:
            raise UsageError(
                f"Landmarks are 4, 5 or 68 points, not {len(points)}.", hint=f"Give the {_ORDER}."
            )
        face = cls(*points)
        face._check()
        return face

    def _check(self) -> None:
        eyes = math.dist(self.left_eye, self.right_eye)
        down = _mean([self.left_mouth, self.right_mouth])[1] - self.eye_middle[1]
        ordered = self.left_eye[0] < self.right_eye[0] and self.left_mouth[0] < self.right_mouth[0]
        if eyes < 2 or down <= 0 or not ordered:
            raise UsageError(
                f"These points are no upright face: {self.left_eye}, {self.right_eye}, "
                f"{self.left_mouth}, {self.right_mouth}.",
                hint=f"The order is {_ORDER}.",
            )

    @property
    def eye_middle(self) -> Point:
        """The point between the eyes."""
        return _mean([self.left_eye, self.right_eye])


def _points(numbers: Sequence[Any]) -> list[Point]:
    try:
        flat = np.asarray(numbers, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        flat = np.full((1, 2), np.nan)
    if not np.isfinite(flat).all():
        raise UsageError("Landmarks must be pairs of numbers.", hint=f"Give the {_ORDER}.")
    return [(float(x), float(y)) for x, y in flat]


def _mean(points: Sequence[Point]) -> Point:
    return sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)


def read_landmarks(given: str) -> list[Landmarks]:
    """The faces in ``"x,y,x,y,x,y,x,y"`` or in a JSON file of one face or a list of faces.

    A face in a file is a list of points or numbers, or an object with left_eye, right_eye,
    left_mouth and right_mouth.

    Raises:
        UsageError: no numbers and no such file, or content of another form.
    """
    path = Path(given)
    if path.suffix.lower() != ".json":
        try:
            return [Landmarks.of([float(part) for part in given.split(",")])]
        except ValueError as error:
            raise UsageError(
                f"The landmarks {given!r} are neither numbers nor a .json file.",
                hint="Write x,y,x,y,x,y,x,y or name a JSON file.",
            ) from error
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"The landmarks file {path} cannot be read: {error}.") from error
    if isinstance(content, dict) and "faces" in content:
        content = content["faces"]
    if _is_face(content):
        content = [content]
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path} holds no face.", hint=f"Give lists of the {_ORDER}.")
    return [_face(each, path) for each in content]


def _is_face(content: Any) -> bool:
    """Whether it is one face: an object, numbers, or points of two numbers each."""
    if isinstance(content, dict):
        return True
    if not isinstance(content, list) or not content:
        return False
    first = content[0]
    pair = isinstance(first, list) and len(first) == 2 and not isinstance(first[0], (list, dict))
    return isinstance(first, (int, float)) or pair


def _face(content: Any, path: Path) -> Landmarks:
    names = ("left_eye", "right_eye", "left_mouth", "right_mouth")
    if isinstance(content, dict):
        missing = [name for name in names if name not in content]
        if missing:
            raise UsageError(f"A face in {path} lacks {', '.join(missing)}.")
        content = [content[name] for name in names]
    return Landmarks.of(content)


@dataclass(frozen=True)
class Square:
    """The aligned square in a photograph: its top left ``corner``, and the vectors along its top
    (``across``) and its left side (``down``), in pixels with (0, 0) the picture's corner."""

    corner: Point
    across: Point
    down: Point

    @classmethod
    def of(cls, face: Landmarks) -> Square:
        """FFHQ's square around a face."""
        eye = np.subtract(face.right_eye, face.left_eye)
        middle = np.asarray(face.eye_middle)
        mouth = np.asarray(_mean([face.left_mouth, face.right_mouth])) - middle
        level = eye - np.array([-mouth[1], mouth[0]])
        level = level / np.hypot(*level)
        level = level * max(np.hypot(*eye) * 2.0, np.hypot(*mouth) * 1.8)
        upright = np.array([-level[1], level[0]])
        corner = middle + mouth * 0.1 - level - upright + 0.5
        across, down = 2 * level, 2 * upright
        return cls(
            (float(corner[0]), float(corner[1])),
            (float(across[0]), float(across[1])),
            (float(down[0]), float(down[1])),
        )

    @property
    def side(self) -> float:
        """The side's length in pixels of the photograph."""
        return math.hypot(*self.across)

    @property
    def corners(self) -> list[Point]:
        """Top left, bottom left, bottom right, top right."""
        (x, y), (ax, ay), (dx, dy) = self.corner, self.across, self.down
        return [(x, y), (x + dx, y + dy), (x + ax + dx, y + ay + dy), (x + ax, y + ay)]


def align(photo: Image.Image, face: Landmarks, size: int) -> tuple[Image.Image, Square]:
    """The face as a picture of ``size`` x ``size``, and where it came from.

    What lies beyond the photograph's edge is its mirror image, blurred the further out it is.

    Raises:
        ImageError: a face that lies outside of the photograph.
    """
    square = Square.of(face)
    x, y = face.eye_middle
    if not (0 <= x < photo.width and 0 <= y < photo.height):
        raise ImageError(
            f"The landmarks at ({x:.0f}, {y:.0f}) are outside of the picture of "
            f"{photo.width} x {photo.height} pixels.",
            hint="Give pixels of the upright picture.",
        )
    return cut(photo, square, size), square


def cut(photo: Image.Image, square: Square, size: int) -> Image.Image:
    """The square of a photograph as a picture of ``size`` x ``size``."""
    canvas, (left, top) = _surroundings(photo.convert("RGB"), square)
    fine = min(_FINEST, max(1, math.ceil(square.side / size)))
    scale = 1 / (size * fine)
    (ax, ay), (dx, dy) = square.across, square.down
    matrix: Matrix = (
        *(ax * scale, dx * scale, square.corner[0] - left),
        *(ay * scale, dy * scale, square.corner[1] - top),
    )
    reduce = max(1, int(square.side / (size * fine)))
    if reduce > 1:
        canvas = canvas.reduce(reduce)
        matrix = _divided(matrix, reduce)
    side = size * fine
    drawn = canvas.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    if fine > 1:
        drawn = drawn.resize((size, size), Image.Resampling.BOX)
    return drawn


def _divided(matrix: Matrix, by: float) -> Matrix:
    a, b, c, d, e, f = matrix
    return a / by, b / by, c / by, d / by, e / by, f / by


def _surroundings(photo: Image.Image, square: Square) -> tuple[Image.Image, tuple[int, int]]:
    """The part of the photo that holds the square, mirrored beyond its edges, and its offset."""
    border = max(3, round(square.side * 0.1))
    xs, ys = zip(*square.corners, strict=True)
    left, top = math.floor(min(xs)) - border, math.floor(min(ys)) - border
    right, bottom = math.ceil(max(xs)) + border, math.ceil(max(ys)) + border
    inner = (max(left, 0), max(top, 0), min(right, photo.width), min(bottom, photo.height))
    pixels = np.asarray(photo.crop(inner))
    before = (inner[1] - top, inner[0] - left)
    after = (bottom - inner[3], right - inner[2])
    if not any((*before, *after)):
        return photo.crop(inner), (left, top)
    pads = ((before[0], after[0]), (before[1], after[1]), (0, 0))
    mirrored = Image.fromarray(np.pad(pixels, pads, mode="symmetric"))
    soft = mirrored.filter(ImageFilter.GaussianBlur(square.side * 0.02))
    inside = Image.new("L", mirrored.size, 0)
    inside.paste(255, (before[1], before[0], before[1] + pixels.shape[1], before[0] + len(pixels)))
    known = inside.filter(ImageFilter.GaussianBlur(square.side * 0.01))
    return Image.composite(mirrored, soft, ImageChops.lighter(inside, known)), (left, top)


def paste_back(
    photo: Image.Image,
    edited: Image.Image,
    square: Square,
    *,
    before: Image.Image | None = None,
    paste: Paste = "replace",
    feather: float = 0.08,
) -> Image.Image:
    """The photograph with the edited face in its place, faded in over ``feather`` of its side.

    "replace" puts the edited picture itself there.  "difference" adds only what the edit changed,
    edited minus ``before`` (the face's reconstruction), so that details a generator cannot redraw
    stay those of the photograph.

    Raises:
        ImageError: "difference" without a ``before`` of the edited picture's size.
    """
    photo = photo.convert("RGB")
    if paste == "difference" and (before is None or before.size != edited.size):
        raise ImageError("Pasting the difference needs the picture before the edit, equally large.")
    box = _inside(photo, square)
    region = np.asarray(photo.crop(box)).astype(np.float32)
    window = (box[2] - box[0], box[3] - box[1])
    weight = _placed(_fade(edited.width, feather), square, box, window)[..., None] / 255
    drawn = _placed(edited, square, box, window)
    if paste == "difference" and before is not None:
        drawn = region + drawn - _placed(before, square, box, window)
    mixed = np.clip(np.rint(region + weight * (drawn - region)), 0, 255).astype(np.uint8)
    result = photo.copy()
    result.paste(Image.fromarray(mixed), box[:2])
    return result


def _inside(photo: Image.Image, square: Square) -> tuple[int, int, int, int]:
    xs, ys = zip(*square.corners, strict=True)
    return (
        max(0, math.floor(min(xs))),
        max(0, math.floor(min(ys))),
        min(photo.width, math.ceil(max(xs))),
        min(photo.height, math.ceil(max(ys))),
    )


def _fade(side: int, feather: float) -> Image.Image:
    """A mask that is white in the middle and falls smoothly to black at the edges."""
    distance = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / side
    ramp = np.clip(distance / max(feather, 1e-6), 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return Image.fromarray(np.rint(255 * np.outer(smooth, smooth)).astype(np.uint8))


def _placed(
    picture: Image.Image, square: Square, box: tuple[int, ...], window: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The aligned picture drawn where it belongs in the photograph's window; black outside."""
    (ax, ay), (dx, dy) = square.across, square.down
    scale = picture.width / (ax * dy - ay * dx)
    forward = (dy * scale, -dx * scale, -ay * scale, ax * scale)
    shift = (box[0] - square.corner[0], box[1] - square.corner[1])
    matrix: Matrix = (
        *(forward[0], forward[1], forward[0] * shift[0] + forward[1] * shift[1]),
        *(forward[2], forward[3], forward[2] * shift[0] + forward[3] * shift[1]),
    )
    reduce = max(1, int(picture.width / square.side))
    if reduce > 1:
        picture = picture.reduce(reduce)
        matrix = _divided(matrix, reduce)
    drawn = picture.transform(window, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(drawn).astype(np.float32)
