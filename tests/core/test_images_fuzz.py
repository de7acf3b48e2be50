"""Seeded mutations of pictures in many formats: an RGB picture or an ImageError, nothing else."""

from __future__ import annotations

import io
import logging
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from guided.core.images import open_image
from guided.errors import ImageError


def originals() -> dict[str, bytes]:
    """One small file for each format and mode."""
    rng = np.random.default_rng(7)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 65536, (24, 32)).astype(np.uint16))
    real = Image.fromarray(rng.random((24, 32)).astype(np.float32))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    frames = [rgb.transpose(Image.Transpose.ROTATE_180), rgb.rotate(45)]
    moving = {"save_all": True, "append_images": frames}
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (rgb, "JPEG", {"exif": exif}),
        "jpeg progressive": (rgb, "JPEG", {"progressive": True}),
        "jpeg cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "png rgba": (rgb.convert("RGBA"), "PNG", {"exif": exif}),
        "png palette": (rgb.quantize(16), "PNG", {"transparency": 3}),
        "png 16": (grey16, "PNG", {}),
        "apng": (rgb, "PNG", moving),
        "gif": (rgb, "GIF", moving),
        "webp": (rgb, "WEBP", moving),
        "tiff lzw": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "tiff float": (real, "TIFF", {}),
        "bmp": (rgb.quantize(16), "BMP", {}),
        "ppm": (rgb, "PPM", {}),
        "tga rle": (rgb, "TGA", {"compression": "tga_rle"}),
        "jpeg 2000": (rgb, "JPEG2000", {}),
        "qoi": (rgb, "QOI", {}),
    }
    made = {}
    for name, (image, kind, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, kind, **options)
        made[name] = file.getvalue()
    return made


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three random wounds."""
    wounded = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(wounded))) if rng.random() < 0.5 else int(rng.integers(64))
        at = min(at, len(wounded) - 1)
        match int(rng.integers(6)):
            case 0:
                wounded[at] ^= 1 << int(rng.integers(8))
            case 1:
                wounded[at] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2:
                del wounded[max(at, 1) :]
            case 3:
                wounded[at : at + 4] = rng.bytes(4)
            case 4:
                del wounded[at : at + int(rng.integers(1, 16))]
            case _:
                wounded[at:at] = wounded[: int(rng.integers(1, 64))]
        if not wounded:
            return b""
    return bytes(wounded)


def hammer(count: int, seed: int) -> dict[str, int]:
    """Open ``count`` mutated files; how many opened and how many were refused.

    The pixel limit is lowered so that no honest large picture hides a slow damaged one.
    """
    files = sorted(originals().items())
    seen = {"opened": 0, "refused": 0}
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        name, data = files[number % len(files)]
        began = time.thread_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                image = open_image(mutated(data, rng), max_pixels=16_000_000)
            except ImageError as error:
                said = str(error)
                seen["refused"] += 1
            else:
                assert image.mode == "RGB", (name, number)
                assert len(image.tobytes()) == image.width * image.height * 3
                seen["opened"] += 1
                said = "It opened, so there is no message."
        assert 20 < len(said) < 500, (name, number, said)
        assert time.thread_time() - began < 1, (name, number)
    return seen


def test_the_originals_open() -> None:
    for name, data in originals().items():
        size = (24, 32) if name in ("jpeg", "png rgba") else (32, 24)
        assert open_image(data).size == size, name


@pytest.fixture(autouse=True)
def _quiet_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def test_mutated_files_quick() -> None:
    seen = hammer(500, seed=1)
    assert seen["opened"] > 50
    assert seen["refused"] > 50


@pytest.mark.soak
def test_mutated_files_soak() -> None:
    began = time.process_time()
    seen = hammer(5000, seed=2)
    assert seen["opened"] > 500
    assert seen["refused"] > 500
    assert (time.process_time() - began) / 5000 < 0.05
