"""Picture files of any kind to RGB pixels, with one error for everything that can go wrong.

Only formats with an in-process decoder are accepted (Pillow's EPS reader, for one, would start
another program).  Sizes are checked from the header before a pixel is decoded.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, UnidentifiedImageError

from guided.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

Color = tuple[int, int, int]

FORMATS = (
    "PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "TGA", "JPEG2000", "AVIF", "QOI",
)  # fmt: skip
"""The formats that are opened, by their Pillow names."""

MAX_BYTES = 1 << 29
"""The largest file that is read, in bytes."""

MAX_SIDE = 65_535
"""The longest side of a picture; longer ones are damaged headers."""

#: What Pillow's decoders raise on damaged files; seen by fuzzing, none of it documented.
DECODER_ERRORS: tuple[type[Exception], ...] = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError,
    AttributeError, RuntimeError, AssertionError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_quiet_lock = threading.Lock()
_quiet_state: list[warnings.catch_warnings[None]] = []
_quiet_users = 0


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence warnings issued inside Pillow, for all threads, until the last user has left.

    A plain ``catch_warnings`` in each thread would restore a neighbour's filters out of order and
    leave them changed for ever.
    """
    global _quiet_users
    with _quiet_lock:
        if _quiet_users == 0:
            catcher = warnings.catch_warnings()
            catcher.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _quiet_state.append(catcher)
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet_state.pop().__exit__(None, None, None)


def named_stream(source: str | os.PathLike[str] | bytes | BinaryIO) -> tuple[str, BinaryIO]:
    """The name to use in messages and a seekable binary stream of a path, bytes or a file.

    Raises:
        ImageError: no such file, not a file, empty, too large, or a stream opened as text.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return _stream_of(f"The given data ({len(data)} bytes)", data)
    if isinstance(source, (str, os.PathLike)):
        return _stream_of_path(os.fsdecode(source))
    if not hasattr(source, "read"):
        raise ImageError(
            f"A picture is given by a path, bytes or a binary file, not by {type(source).__name__}."
        )
    name = str(getattr(source, "name", "The given stream"))
    try:
        content: object = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {error}.") from error
    if not isinstance(content, bytes):
        raise ImageError(f"{name} was opened as text.", hint='Open it with mode "rb".')
    return _stream_of(name, content)


def _stream_of(name: str, data: bytes) -> tuple[str, BinaryIO]:
    _check_length(name, len(data))
    return name, io.BytesIO(data)


def _stream_of_path(name: str) -> tuple[str, BinaryIO]:
    path = Path(name)
    shown = name if len(name) <= 200 else f"{name[:197]}..."
    shown = shown if shown.isprintable() and shown else repr(shown)
    if "://" in name:
        raise ImageError(
            f"{shown} is a web address; only local files are opened.",
            hint="Download the picture and give the file.",
        )
    try:
        if path.is_dir():
            raise ImageError(f"{shown} is a folder.", hint="Give the picture files inside it.")
        if not path.is_file():
            reason = "is not a regular file" if path.exists() else "does not exist"
            raise ImageError(f"{shown} {reason}.", hint="Check the path.")
        _check_length(shown, path.stat().st_size)
        return shown, path.open("rb")
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{shown} cannot be read: {error.args[-1]}.", hint="Check the path."
        ) from error


def _check_length(name: str, length: int) -> None:
    if length == 0:
        raise ImageError(f"{name} is empty.", hint="Copy or download it again.")
    if length > MAX_BYTES:
        raise ImageError(
            f"{name} is larger than {MAX_BYTES >> 20} MiB.",
            hint="Save it smaller, for instance as PNG or JPEG.",
        )


def decode(
    name: str,
    stream: BinaryIO,
    *,
    max_pixels: int,
    at_least: tuple[int, int] | None,
    background: Color,
) -> Image.Image:
    """The first frame of a stream as an upright RGB picture that owns its pixels.

    Raises:
        ImageError: not a picture, more than ``max_pixels``, truncated or damaged.
    """
    try:
        with Image.open(stream, formats=FORMATS) as image:
            check_size(name, image.size, max_pixels)
            _say_if_animated(name, image)
            if at_least is not None:
                _reduce(image, at_least)
            image.load()
            check_size(name, image.size, max_pixels)
            return upright(to_rgb(image, background=background, name=name), image)
    except UnidentifiedImageError as error:
        raise _unknown_format(name, stream) from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, "Its header announces more", max_pixels) from error
    except DECODER_ERRORS as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise ImageError(
            f"{name} is damaged or cut short ({reason[:200]}).",
            hint="Copy or download it again, or save it anew from the program that made it.",
        ) from error


#: Formats by what their files begin with, from which byte on, and what to do with such a file.
_HEIC = "Save it as JPEG or PNG, for instance with the program that shows it."
_OTHERS = (
    (4, (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1"),
     "a HEIC picture", _HEIC),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL picture", _HEIC),
    (0, (b"8BPS",), "a Photoshop file", _HEIC),
    (0, (b"%PDF",), "a PDF", "Save its page as PNG."),
    (0, (b"<svg", b"<?xml"), "a drawing (SVG) or another XML file", "Save it as PNG."),
    (0, (b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"), "a web page",
     "Download the picture itself."),
    (4, (b"ftyp",), "a film", "Save one of its frames as PNG."),
)  # fmt: skip


def _unknown_format(name: str, stream: BinaryIO) -> ImageError:
    """The error for a file in no format that is read, which names the format where it is known."""
    stream.seek(0)
    head = stream.read(16)
    for start, marks, kind, way_out in _OTHERS:
        if head[start:].startswith(marks):
            return ImageError(
                f"{name} is {kind} by its content, which is not read here.", hint=way_out
            )
    return ImageError(
        f"{name} is not a picture in a format that is read here.",
        hint=f"Formats: {', '.join(f for f in FORMATS if f != 'DIB')}.",
    )


def check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Accept sizes from 1 x 1 to ``max_pixels`` in all, no side longer than ``MAX_SIDE``.

    Raises:
        ImageError: an empty or too large picture.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width} x {height}: it has no pixels.")
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{name} is {width} x {height}: a side is longer than {MAX_SIDE}.",
            hint="Its header is probably damaged; cut the picture into parts if not.",
        )
    if width * height > max_pixels:
        raise _too_large(name, f"It is {width} x {height}, more", max_pixels)


def _too_large(name: str, found: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name} is too large. {found} than the limit of {max_pixels / 1e6:g} megapixels.",
        hint="Scale it down first, or raise the limit (max_pixels) if you trust the file.",
    )


def _say_if_animated(name: str, image: Image.Image) -> None:
    if image.format == "MPO":  # a photo with a preview or depth map behind it, not an animation
        return
    try:
        several = bool(getattr(image, "is_animated", False))
    except DECODER_ERRORS:  # the first frame may be fine although a later one is not
        several = False
    if several:
        logger.warning("%s has several frames or pages; only the first is used.", name)


def _reduce(image: Image.Image, at_least: tuple[int, int]) -> None:
    """Let a JPEG be decoded at the smallest DCT scale that keeps twice the wanted size."""
    width, height = at_least
    if orientation(image) >= 5:
        width, height = height, width
    image.draft(None, (2 * width, 2 * height))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8 of a picture; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def upright(pixels: Image.Image, tagged: Image.Image) -> Image.Image:
    """The pixels turned and mirrored as the orientation tag of ``tagged`` says."""
    turn = _TURNS.get(orientation(tagged))
    return pixels if turn is None else pixels.transpose(turn)


def to_rgb(
    image: Image.Image, *, background: Color = (255, 255, 255), name: str = "the picture"
) -> Image.Image:
    """An 8-bit RGB copy of a picture of any mode.

    Transparent pixels are laid on ``background``; 16-bit values are divided by 257, not clipped;
    32-bit integers and floats outside [0, 65535] and [0, 1] are stretched from their lowest to
    their highest value, and the log says so.

    Raises:
        ImageError: floats of which none is finite.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image, name)
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for Adobe's, which store paper as 255.
        image = Image.merge("CMYK", [band.point(lambda v: 255 - v) for band in image.split()])
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (*background, 255))
        return _bare(Image.alpha_composite(paper, rgba).convert("RGB"))
    return _bare(image.copy() if image.mode == "RGB" else image.convert("RGB"))


def _bare(image: Image.Image) -> Image.Image:
    image.info = {}  # no profile, text or transparency key that no longer holds
    return image


def _deep_to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Grey pixels of more than 8 bits as RGB."""
    import numpy as np

    with np.errstate(invalid="ignore"):  # signalling NaNs of a damaged file
        values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", None) or {}
    if image.mode.startswith("I;16"):
        unit = values / 65535
    elif image.mode == "I":
        unit = _unit(values, 65535.0, name)
    else:
        unit = _unit(values, 1.0, name)
    if tags.get(262) == 0:  # PhotometricInterpretation: white is zero
        unit = 1 - unit
    grey = np.floor(unit * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _unit(values: np.ndarray, full: float, name: str) -> np.ndarray:
    """Values in [0, full] divided by full; others stretched from lowest to highest to [0, 1]."""
    import numpy as np

    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError(f"{name} has no finite pixel value.", hint="Save it again with numbers.")
    low, high = float(values[finite].min()), float(values[finite].max())
    values = np.where(finite, values, low)
    if low >= 0 and high <= full:
        return values / full
    logger.warning(
        "%s has values from %g to %g outside [0, %g]; they are stretched to the full range.",
        name, low, high, full,
    )  # fmt: skip
    span = high - low
    return (values - low) / span if 0 < span < float("inf") else np.zeros_like(values)
