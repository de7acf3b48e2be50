"""Pictures in memory: what is taken, as which pixels, and what is refused with which way out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guided.core.image_arrays import image_in_memory
from guided.errors import ImageError

COLORS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
PICTURE = Image.fromarray(COLORS)
TENSOR = torch.from_numpy(COLORS).permute(2, 0, 1)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        PICTURE,
        COLORS,
        COLORS / 255,
        (COLORS / 255).astype(np.float32),
        TENSOR,
        TENSOR[None],
        TENSOR / 255,
        (TENSOR / 255)[None].requires_grad_(),
        _png(PICTURE),
        io.BytesIO(_png(PICTURE)),
    ],
    ids=[
        "PIL", "bytes", "doubles", "floats", "tensor", "batch of one", "float tensor", "leaf",
        "file's bytes", "stream",
    ],
)  # fmt: skip
def test_every_form_gives_the_same_pixels(given: Any) -> None:
    image = image_in_memory(given)
    assert image is not None
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), COLORS)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1)])
def test_gray_and_true_and_false(shape: tuple[int, ...]) -> None:
    gray = np.arange(24, dtype=np.uint8).reshape(shape)
    wanted = np.repeat(gray.reshape(4, 6, 1), 3, 2)
    assert np.array_equal(np.asarray(image_in_memory(gray)), wanted)
    assert np.array_equal(np.asarray(image_in_memory(gray > 11)), np.where(wanted > 11, 255, 0))
    tensor = torch.from_numpy(gray).reshape(4, 6)
    assert np.array_equal(np.asarray(image_in_memory(tensor)), wanted)
    assert np.array_equal(np.asarray(image_in_memory(tensor[None, None] / 255)), wanted)


def test_half_precision_is_read() -> None:
    half = (TENSOR / 255).to(torch.bfloat16)
    image = image_in_memory(half)
    assert np.abs(np.asarray(image).astype(int) - COLORS).max() <= 1


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0)])
def test_what_is_transparent_is_laid_on_the_background(background: tuple[int, int, int]) -> None:
    clear = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    for given in (clear, np.asarray(clear), _png(clear)):
        image = image_in_memory(given, background=background)
        assert image is not None
        assert image.getpixel((0, 0)) == background


def test_a_photograph_in_memory_is_turned_as_its_file_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    PICTURE.save(stream, "PNG", exif=exif)
    held = Image.open(io.BytesIO(stream.getvalue()))
    image = image_in_memory(held)
    assert image is not None
    assert image.size == (5, 7)
    assert image.tobytes() == image_in_memory(stream.getvalue()).tobytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("given", ["a.png", None, 3, np.float32(0.5), {"a": 1}])
def test_other_values_hold_no_picture(given: Any) -> None:
    assert image_in_memory(given) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (COLORS.transpose(2, 0, 1), r"array \[3, 5, 7\].*transpose\(1, 2, 0\)"),
        (TENSOR.permute(1, 2, 0), r"tensor \[5, 7, 3\].*permute\(2, 0, 1\)"),
        (np.stack([COLORS] * 2), r"array \[2, 5, 7, 3\].*list\(images\)"),
        (torch.stack([TENSOR] * 2), r"tensor \[2, 3, 5, 7\].*list\(images\)"),
        (np.zeros((5, 6, 2), np.uint8), r"array \[5, 6, 2\].*1, 3 or 4 channels"),
        (np.zeros(12, np.uint8), r"array \[12\]"),
        (np.zeros((0, 4, 3), np.uint8), "4 x 0 pixels"),
        (COLORS.astype(np.int64), "int64 values.*uint8"),
        (COLORS.astype(np.float32), r"floats from .* to .*allowed are 0 to 1"),
        (COLORS / 127.5 - 1, r"floats from -1"),
        (np.full((2, 2), np.nan), "floats from nan to nan"),
        (b"no picture", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_way_out(given: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=f"(?s){reason}"):
        image_in_memory(given)


def test_a_mask_of_zeros_and_ones_as_bytes_is_no_mask() -> None:
    mask = np.eye(4, dtype=np.uint8)
    with pytest.raises(ImageError, match="white is 255"):
        image_in_memory(mask, mask=True)
    assert image_in_memory(mask) is not None
    image = image_in_memory(mask.astype(bool), mask=True)
    assert image is not None
    assert image.getextrema()[0] == (0, 255)
