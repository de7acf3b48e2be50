"""Pictures in and out: files to RGB, RGB to tensors [B, 3, H, W] in [0, 1] and back.

This is the only place where pictures and tensors meet.  Opening a file needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from guided.core.decode import Color, decode, named_stream, quiet_pillow, to_rgb
from guided.errors import ImageError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

WHITE: Color = (255, 255, 255)
MAX_PIXELS = 64_000_000

__all__ = [
    "MAX_PIXELS",
    "center_square",
    "grid",
    "open_image",
    "resize",
    "resize_tensor",
    "to_images",
    "to_rgb",
    "to_tensor",
]


def open_image(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    background: Color = WHITE,
    max_pixels: int = MAX_PIXELS,
    at_least: tuple[int, int] | None = None,
) -> Image.Image:
    """The picture in a file, upright and in RGB.

    EXIF orientation is applied, transparency is laid on ``background``, 16-bit values are scaled
    to 8 bits, and of an animation the first frame is taken (the log says so).  Pixels beyond
    ``max_pixels`` are refused from the header, before anything is decoded; Pillow's own limit
    (about 179 million) stays in force.

    ``at_least`` = (width, height) lets a JPEG be decoded at half, a quarter or an eighth of its
    size as long as both sides stay at least twice those: much quicker where only a small picture
    is needed.  The result is then smaller than the file's size; resize it yourself.

    Raises:
        ImageError: whatever is wrong with the file; the message names it and what was found.
    """
    if at_least is not None and (len(at_least) != 2 or min(at_least) < 1):
        raise ImageError(f"at_least must be a width and a height from 1 up, not {at_least}.")
    name, stream = named_stream(source)
    with stream, quiet_pillow():
        return decode(name, stream, max_pixels=max_pixels, at_least=at_least, background=background)


def to_tensor(images: Image.Image | Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as a float32 tensor [B, 3, H, W] in [0, 1] on the CPU.

    Raises:
        ImageError: no picture, or pictures of different sizes.
    """
    import torch

    listed = [images] if isinstance(images, Image.Image) else list(images)
    if not listed:
        raise ImageError("There is no picture to turn into a tensor.")
    sizes = sorted({image.size for image in listed})
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for width, height in sizes[:5])
        raise ImageError(
            f"Pictures of one batch must have one size; these have {shown}.",
            hint="Use center_square(image, size) or resize(image, (width, height)) first.",
        )
    width, height = sizes[0]
    rows = [
        torch.frombuffer(bytearray(_rgb(image).tobytes()), dtype=torch.uint8) for image in listed
    ]
    pixels = torch.stack(rows).view(len(rows), height, width, 3)
    return pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" and not image.has_transparency_data else to_rgb(image)


def to_images(images: Tensor) -> list[Image.Image]:
    """Pictures of a tensor [B, 3, H, W]: values clamped to [0, 1], then rounded half up to bytes.

    Raises:
        ShapeError: another shape, or values that are not finite.
    """
    import torch

    from guided.core.shapes import expect

    sizes = expect(images, "b 3 h w", "images")
    values = images.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise ShapeError("images must be finite; some values are NaN or infinite.")
    pixels = (values.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)
    rows = pixels.permute(0, 2, 3, 1).contiguous()
    size = (sizes["w"], sizes["h"])
    return [Image.frombytes("RGB", size, row.numpy().tobytes()) for row in rows]


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at exactly (width, height), filtered (Lanczos) so that nothing aliases.

    Raises:
        ImageError: a size below 1 x 1.
    """
    if min(size) < 1:
        raise ImageError(f"A picture cannot be resized to {size[0]} x {size[1]}.")
    return image.copy() if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def resize_tensor(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] at (width, height): antialiased bicubic, clamped to [0, 1].

    Differentiable; the same tensor where the size is already right.

    Raises:
        ShapeError: another shape.
        ImageError: a size below 1 x 1.
    """
    from torch.nn import functional

    from guided.core.shapes import expect

    sizes = expect(images, "b 3 h w", "images")
    width, height = size
    if min(size) < 1:
        raise ImageError(f"Pictures cannot be resized to {width} x {height}.")
    if (sizes["w"], sizes["h"]) == size:
        return images
    smooth = functional.interpolate(
        images, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return smooth.clamp(0, 1)


def center_square(image: Image.Image, size: int | None = None) -> Image.Image:
    """The largest central square of a picture, resized to ``size`` x ``size`` if that is given."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if size is None else resize(square, (size, size))


def grid(
    images: Sequence[Image.Image],
    columns: int | None = None,
    *,
    gap: int = 4,
    background: Color = WHITE,
) -> Image.Image:
    """One picture of many, row by row, each centred in a cell of the largest width and height.

    ``columns`` defaults to the side of the smallest square that holds them all.

    Raises:
        ImageError: no picture, or fewer than one column.
    """
    if not images:
        raise ImageError("There is no picture to lay out.")
    across = columns if columns is not None else -int(-(len(images) ** 0.5) // 1)
    if across < 1 or gap < 0:
        raise ImageError(
            f"A grid needs at least 1 column and a gap from 0 up, not {across}, {gap}."
        )
    down = -(-len(images) // across)
    cell_w = max(image.width for image in images) + gap
    cell_h = max(image.height for image in images) + gap
    sheet = Image.new("RGB", (across * cell_w + gap, down * cell_h + gap), background)
    for i, image in enumerate(images):
        left = gap + i % across * cell_w + (cell_w - gap - image.width) // 2
        top = gap + i // across * cell_h + (cell_h - gap - image.height) // 2
        sheet.paste(_rgb(image), (left, top))
    return sheet
