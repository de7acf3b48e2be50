"""What a CLIP does to a picture before its first layer: resize, crop or pad, normalise.

The same settings serve two ways in: tensors, differentiably (guidance), and files, quickly
(indexing).  Both follow open_clip's inference transform.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from guided.core.images import open_image
from guided.core.shapes import expect
from guided.errors import CannotDo

Fit = Literal["shortest", "longest", "squash"]
Source = str | os.PathLike[str] | Image.Image
_FITS: tuple[Fit, ...] = ("shortest", "longest", "squash")
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "random": Image.Resampling.BICUBIC,
}


def _triple(value: Any) -> tuple[float, float, float]:
    numbers = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * 3
    if len(numbers) != 3:
        raise CannotDo(f"The scorer's mean or std must be one number or three, not {value!r}.")
    return numbers[0], numbers[1], numbers[2]


@dataclass(frozen=True)
class Preprocess:
    """The picture size and the statistics a model was trained with.

    ``size`` is (height, width).  ``fit``: "shortest" scales the shorter side to the size and cuts
    the middle, "longest" scales the longer side and pads with ``fill``, "squash" ignores the
    aspect ratio.  ``mean`` and ``std`` are those of sRGB values in [0, 1].
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = "shortest"
    filter: str = "bicubic"
    fill: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Preprocess:
        """The settings in open_clip's ``preprocess_cfg``.

        Raises:
            CannotDo: a resize mode or a filter that is not known.
        """
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        wanted = config.get("resize_mode") or "shortest"
        fit = next((known for known in _FITS if known == wanted), None)
        kind = config.get("interpolation") or "bicubic"
        if fit is None or kind not in _FILTERS:
            raise CannotDo(
                f"This scorer resizes by {wanted!r} with {kind!r}; "
                f"allowed: {', '.join(_FITS)} with {', '.join(_FILTERS)}."
            )
        mean, std = _triple(config["mean"]), _triple(config["std"])
        return cls((height, width), mean, std, fit, kind, int(config.get("fill_color") or 0))

    def placement(self, height: int, width: int) -> Placement:
        """Where the pixels of a picture of this size go."""
        return _placement(self.size, self.fit, height, width)

    def tensor(self, images: Tensor) -> Tensor:
        """Normalised model input [B, 3, *size] of pictures [B, 3, H, W] in [0, 1].

        Antialiased, clamped to [0, 1] after the resize as an 8-bit picture would be, and
        differentiable.

        Raises:
            ShapeError: another shape.
        """
        sizes = expect(images, "b 3 h w", "images")
        place = self.placement(sizes["h"], sizes["w"])
        images = images.float()
        if place.scaled != (sizes["h"], sizes["w"]):
            mode = "bilinear" if self.filter == "bilinear" else "bicubic"
            images = functional.interpolate(
                images, size=place.scaled, mode=mode, antialias=True, align_corners=False
            ).clamp(0, 1)
        if any(place.padding):
            images = functional.pad(images, place.padding, value=self.fill / 255)
        top, left = place.offset
        return self.normalize(images[..., top : top + self.size[0], left : left + self.size[1]])

    def normalize(self, images: Tensor) -> Tensor:
        """(images - mean) / std for float pictures [B, 3, H, W] in [0, 1]."""
        mean, std = images.new_tensor(self.mean), images.new_tensor(self.std)
        return (images - mean[:, None, None]) / std[:, None, None]

    def pixels(self, source: Source, *, exact: bool = False) -> Tensor:
        """Bytes [3, *size] (uint8) of one picture or picture file, resized and cut.

        Equal to open_clip's transform for an upright RGB picture, without the columns that the
        crop would throw away.  A JPEG file may be decoded at a reduced size (at least twice what
        is needed) unless ``exact``.

        Raises:
            ImageError: a file that does not give a picture.
        """
        if isinstance(source, Image.Image):
            image = source.convert("RGB")
        else:
            reduced = None if exact or self.fit == "longest" else (self.size[1], self.size[0])
            image = open_image(source, at_least=reduced)
        place = self.placement(image.height, image.width)
        image = self._resized(image, place)
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return flat.view(self.size[0], self.size[1], 3).permute(2, 0, 1)

    def _resized(self, image: Image.Image, place: Placement) -> Image.Image:
        height, width = self.size
        (tall, wide), (top, left) = place.scaled, place.offset
        if any(place.padding):
            image = image.resize((wide, tall), _FILTERS[self.filter])
            left_pad, right_pad, top_pad, bottom_pad = place.padding
            whole = (wide + left_pad + right_pad, tall + top_pad + bottom_pad)
            canvas = Image.new("RGB", whole, (self.fill,) * 3)
            canvas.paste(image, (left_pad, top_pad))
            return canvas.crop((left, top, left + width, top + height))
        if (tall, wide) == (image.height, image.width):
            return image.crop((left, top, left + width, top + height))
        across, down = image.width / wide, image.height / tall
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        right, bottom = min(box[2], image.width), min(box[3], image.height)
        return image.resize(
            (width, height), _FILTERS[self.filter], box=(box[0], box[1], right, bottom)
        )


@dataclass(frozen=True)
class Placement:
    """A resize to ``scaled`` (height, width), then ``padding`` (left, right, top, bottom), then
    a crop that begins at ``offset`` (top, left)."""

    scaled: tuple[int, int]
    padding: tuple[int, int, int, int]
    offset: tuple[int, int]


@lru_cache(maxsize=1024)
def _placement(size: tuple[int, int], fit: Fit, height: int, width: int) -> Placement:
    goal_h, goal_w = size
    if fit == "squash":
        scaled = size
    elif fit == "shortest" and goal_h == goal_w:
        short, long = min(height, width), max(height, width)
        other = int(goal_h * long / short)
        scaled = (goal_h, other) if height <= width else (other, goal_h)
    else:
        ratios = (height / goal_h, width / goal_w)
        ratio = max(ratios) if fit == "longest" else min(ratios)
        scaled = (max(1, round(height / ratio)), max(1, round(width / ratio)))
    short_h, short_w = max(0, goal_h - scaled[0]), max(0, goal_w - scaled[1])
    padding = (short_w // 2, (short_w + 1) // 2, short_h // 2, (short_h + 1) // 2)
    spare_h, spare_w = max(0, scaled[0] - goal_h), max(0, scaled[1] - goal_w)
    offset = (round(spare_h / 2), round(spare_w / 2))
    return Placement(scaled, padding, offset)
