"""Golden odd files, each made here: what open_image gives, or the error it raises."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from guided.core.images import open_image
from guided.errors import ImageError
from tests.helpers.png_bytes import png

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bombs() -> dict[str, bytes]:
    """Headers of 60000 x 60000 (or the format's largest) with next to no data behind them."""
    side = 60000
    gif = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    gif += b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02D\x01\0;"
    bmp = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    tga = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, side, side, 24, 0)
    tiff = encoded(Image.new("L", (3, 3)), "TIFF")
    for tag in (256, 257):
        at = tiff.index(struct.pack("<HHI", tag, 4, 1)) + 8
        tiff = tiff[:at] + struct.pack("<I", side) + tiff[at + 4 :]
    jpeg = encoded(Image.new("RGB", (8, 8)), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    return {
        "PNG": png(side, side, 8, 2, bytes(1000)),
        "PNG16": png(side, side, 16, 6, bytes(1000)),
        "GIF": gif,
        "BMP": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bmp + bytes(64),
        "PPM": b"P6 60000 60000 255\n" + bytes(64),
        "TGA": tga + bytes(64),
        "TIFF": tiff,
        "JPEG": jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :],
        "QOI": b"qoif" + struct.pack(">IIBB", side, side, 3, 0) + bytes(64),
    }


@pytest.mark.parametrize("kind", sorted(bombs()))
def test_header_bombs_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=r"too large.*limit of 64 megapixels"):
        open_image(bombs()[kind])


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_header_bombs_cost_no_memory_and_no_torch(tmp_path: Path) -> None:
    for kind, data in bombs().items():
        (tmp_path / kind).write_bytes(data)
    script = """
import pathlib, re, sys
from guided.core.images import open_image
from guided.errors import ImageError
refused = 0
for file in pathlib.Path(sys.argv[1]).iterdir():
    try:
        open_image(file)
    except ImageError:
        refused += 1
status = pathlib.Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
print(refused, peak, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    refused, peak, torch = done.stdout.split()
    assert int(refused) == len(bombs())
    assert float(peak) < 200
    assert torch == "False"
