"""Pictures in memory: PIL pictures, arrays, tensors and the bytes of a file, to RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from guided.core.decode import Color, to_rgb, upright
from guided.core.images import MAX_PIXELS, WHITE, open_image
from guided.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

_ALLOWED = (
    "Allowed: a path, a PIL picture, the bytes of a file, an array [H, W, 3] or [H, W], a tensor "
    "[3, H, W] or [1, 3, H, W]; bytes (uint8), or floats in [0, 1]."
)
#: How far floats may leave [0, 1] by rounding.
_ROUNDING = 1e-3


def is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor of at least one dimension."""
    return hasattr(value, "__array__") and hasattr(value, "shape") and len(value.shape) > 0


def image_in_memory(
    value: Any, *, background: Color = WHITE, mask: bool = False
) -> Image.Image | None:
    """The RGB picture that a value holds; None for a value that holds none, such as a path.

    Taken are PIL pictures (turned as their EXIF data say), the bytes of a file or a binary stream,
    arrays [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] and tensors [C, H, W] or [1, C, H, W] with as
    many channels: uint8 in [0, 255], floats in [0, 1], or true and false.  What is transparent is
    laid on ``background``.  A ``mask`` of bytes must not hold 0 and 1 alone.

    Raises:
        ImageError: another shape, type or range, or bytes that are no picture.
    """
    if isinstance(value, Image.Image):
        return upright(to_rgb(value, background=background), value)
    if isinstance(value, (bytes, bytearray, memoryview)) or hasattr(value, "read"):
        return open_image(value, background=background)
    if not is_array(value):
        return None
    return to_rgb(Image.fromarray(_bytes(_height_width(value), mask=mask)), background=background)


def _height_width(value: Any) -> np.ndarray:
    """The values as an array [H, W] or [H, W, C] of 3 or 4 channels."""
    import numpy as np

    shape = [int(size) for size in value.shape]
    if tensor := hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    array = np.asarray(value)
    if tensor and array.ndim == 4 and len(array) == 1:
        array = array[0]
    if tensor and array.ndim == 3:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)):
        if 0 < array.shape[0] * array.shape[1] <= MAX_PIXELS:
            return array
        raise ImageError(
            f"A picture of {array.shape[1]} x {array.shape[0]} pixels was given; allowed are 1 to "
            f"{MAX_PIXELS / 1e6:g} megapixels."
        )
    kind = "tensor" if tensor else "array"
    raise ImageError(
        f"A picture was given as {'a' if tensor else 'an'} {kind} {shape}. {_ALLOWED}",
        hint=_way_out(shape, tensor=tensor),
    )


def _way_out(shape: list[int], *, tensor: bool) -> str:
    if len(shape) == 4:
        return "Of a batch give a list of its pictures: list(images)."
    if len(shape) == 3 and tensor and shape[2] in (1, 3, 4):
        return "Put the channels first: image.permute(2, 0, 1)."
    if len(shape) == 3 and not tensor and shape[0] in (1, 3, 4):
        return "Put the channels last: image.transpose(1, 2, 0)."
    return "Give one picture of 1, 3 or 4 channels."


def _bytes(array: np.ndarray, *, mask: bool) -> np.ndarray:
    """The values as bytes in [0, 255]."""
    import numpy as np

    if array.dtype == np.bool_:
        return np.where(array, 255, 0).astype(np.uint8)
    if array.dtype == np.uint8:
        if mask and array.max() == 1:
            raise ImageError(
                "The mask holds bytes from 0 to 1, which is black all over: white is 255.",
                hint="Give it as true and false (mask.astype(bool), mask.bool()) or times 255.",
            )
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise ImageError(
            f"A picture was given as {array.dtype} values. {_ALLOWED}",
            hint="Give values from 0 to 255 as uint8, those of a mask as true and false.",
        )
    low, high = float(array.min()), float(array.max())
    if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:  # not so either where one is NaN
        raise ImageError(
            f"A picture was given as floats from {low:g} to {high:g}; allowed are 0 to 1.",
            hint="Scale them to [0, 1], or give bytes (uint8) from 0 to 255.",
        )
    return np.floor(array.astype(np.float64).clip(0, 1) * 255 + 0.5).astype(np.uint8)
