"""Golden odd files, each made here: what open_image gives, or the error it raises."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from guided.core.decode import DECODER_ERRORS, check_size, to_rgb
from guided.core.images import open_image
from guided.errors import ImageError
from tests.helpers.png_bytes import png

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def near(image: Image.Image, at: tuple[int, int], color: tuple[int, ...], within: int = 12) -> bool:
    pixel = image.getpixel(at)
    assert isinstance(pixel, tuple)
    return max(abs(a - b) for a, b in zip(pixel, color, strict=True)) <= within


def corners() -> Image.Image:
    """48 x 32 with a red top-left, green top-right, blue bottom-left and white bottom-right."""
    image = Image.new("RGB", (48, 32), WHITE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 23, 15), fill=RED)
    draw.rectangle((24, 0, 47, 15), fill=GREEN)
    draw.rectangle((0, 16, 23, 31), fill=BLUE)
    return image


# What a camera stores so that turning it as the tag says gives ``corners()`` again.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", sorted(STORED))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    turn = STORED[orientation]
    stored = corners() if turn is None else corners().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(stored, kind, exif=exif))
    assert image.size == (48, 32)
    for at, color in (((5, 5), RED), ((42, 5), GREEN), ((5, 27), BLUE), ((42, 27), WHITE)):
        assert near(image, at, color, 60 if kind in ("JPEG", "WEBP") else 0), (
            at,
            image.getpixel(at),
        )
    assert image.getexif().get(0x0112) is None  # nobody turns it a second time


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_orientation_with_reduced_decoding(orientation: int) -> None:
    turn = STORED[orientation]
    large = corners().resize((960, 640))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = large if turn is None else large.transpose(turn)
    image = open_image(encoded(stored, "JPEG", exif=exif), at_least=(100, 70))
    assert image.size == (240, 160)  # a quarter: an eighth would be less than 2 x (100, 70)
    assert near(image, (20, 20), RED)
    assert near(image, (220, 20), GREEN)


def test_an_unknown_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert open_image(encoded(corners(), "JPEG", exif=exif)).size == (48, 32)


def test_at_least_keeps_twice_the_wanted_size_or_the_whole() -> None:
    data = encoded(Image.new("RGB", (800, 600), RED), "JPEG")
    assert open_image(data, at_least=(100, 75)).size == (200, 150)
    assert open_image(data, at_least=(101, 75)).size == (400, 300)
    assert open_image(data, at_least=(700, 10)).size == (800, 600)
    png = encoded(Image.new("RGB", (80, 60), RED), "PNG")
    assert open_image(png, at_least=(2, 2)).size == (80, 60)
    with pytest.raises(ImageError, match="at_least must be a width and a height from 1 up"):
        open_image(data, at_least=(0, 5))


def without_adobe_marker(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def test_cmyk_jpeg_of_adobe_and_plain() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    adobe = encoded(ink, "JPEG", quality=95)
    assert near(open_image(adobe), (8, 8), RED)
    inverted = Image.merge("CMYK", [band.point(lambda v: 255 - v) for band in ink.split()])
    plain = without_adobe_marker(encoded(inverted, "JPEG", quality=95))
    assert near(open_image(plain), (8, 8), RED)


def test_cmyk_tiff() -> None:
    assert near(
        open_image(encoded(Image.new("CMYK", (9, 9), (255, 0, 255, 0)), "TIFF")), (4, 4), GREEN
    )


def palette() -> Image.Image:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putpixel((1, 0), 1)
    image.putpixel((2, 0), 2)
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry(kind: str) -> None:
    data = encoded(palette(), kind, transparency=1)
    image = open_image(data)
    assert [image.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, BLUE]
    assert open_image(data, background=(9, 8, 7)).getpixel((1, 0)) == (9, 8, 7)


def test_palette_with_an_alpha_table() -> None:
    image = open_image(encoded(palette(), "PNG", transparency=bytes([255, 128, 0])))
    assert image.getpixel((0, 0)) == RED
    assert near(image, (1, 0), (127, 255, 127), 1)
    assert image.getpixel((2, 0)) == WHITE


def test_plain_palette() -> None:
    image = open_image(encoded(palette(), "PNG"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [RED, GREEN, BLUE]


@pytest.mark.parametrize(
    ("mode", "color", "wanted"),
    [
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("LA", (0, 0), WHITE),
        ("LA", (0, 51), (204, 204, 204)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_lies_on_white(
    kind: str, mode: str, color: tuple[int, ...], wanted: tuple[int, int, int]
) -> None:
    assert near(open_image(encoded(Image.new(mode, (5, 5), color), kind)), (2, 2), wanted, 1)


def test_rgb_and_grey_with_one_transparent_color() -> None:
    rgb = encoded(Image.new("RGB", (3, 3), RED), "PNG", transparency=RED)
    grey = encoded(Image.new("L", (3, 3), 7), "PNG", transparency=7)
    assert open_image(rgb).getpixel((1, 1)) == WHITE
    assert open_image(grey).getpixel((1, 1)) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("value", [0, 300, 30000, 65535])
def test_sixteen_bit_grey_is_scaled(kind: str, value: int) -> None:
    image = open_image(encoded(Image.fromarray(np.full((3, 4), value, np.uint16)), kind))
    assert near(image, (1, 1), (round(value / 257),) * 3, 1)


def rgb16_tiff(value: int) -> bytes:
    pixels = struct.pack("<3H", value, value, value) * 4
    bits, data = 8 + 2 + 12 * 9 + 4, 8 + 2 + 12 * 9 + 4 + 6
    tags = [
        (256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, data), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4)
    return head + struct.pack("<3H", 16, 16, 16) + pixels


def test_sixteen_bit_color_is_scaled() -> None:
    row = b"\0" + struct.pack(">3H", 30000, 30000, 30000) * 2
    assert near(open_image(png(2, 2, 16, 2, row * 2)), (0, 0), (117, 117, 117), 1)
    assert near(open_image(rgb16_tiff(30000)), (0, 0), (117, 117, 117), 1)


def test_sixteen_bit_grey_tiff_where_white_is_zero() -> None:
    data = encoded(Image.fromarray(np.full((3, 3), 65535, np.uint16)), "TIFF")
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    assert data[at : at + 2] == b"\x01\0"
    assert open_image(data).getpixel((1, 1)) == WHITE
    flipped = data[:at] + b"\0\0" + data[at + 2 :]
    assert open_image(flipped).getpixel((1, 1)) == (0, 0, 0)


def test_one_bit() -> None:
    image = Image.new("1", (9, 3), 0)
    image.putpixel((4, 1), 1)
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        opened = open_image(encoded(image, kind))
        assert (opened.getpixel((4, 1)), opened.getpixel((0, 0))) == (WHITE, (0, 0, 0)), kind


def test_float_tiff(caplog: pytest.LogCaptureFixture) -> None:
    unit = np.array([[0, 0.25], [0.5, 1]], np.float32)
    assert near(open_image(encoded(Image.fromarray(unit), "TIFF")), (0, 1), (128, 128, 128), 0)
    assert caplog.text == ""
    wide = open_image(encoded(Image.fromarray(unit * 40 - 10), "TIFF"))
    assert [wide.getpixel((x, y))[0] for y in (0, 1) for x in (0, 1)] == [0, 64, 128, 255]
    assert "stretched to the full range" in caplog.text
    broken = unit.copy()
    broken[0, 0] = np.nan
    assert open_image(encoded(Image.fromarray(broken), "TIFF")).getpixel((1, 1)) == WHITE
    with pytest.raises(ImageError, match="no finite pixel value"):
        open_image(encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_and_the_log_says_so(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.new("RGB", (12, 8), color) for color in (RED, GREEN, BLUE)]
    file = tmp_path / f"moving.{kind.lower()}"
    lossless = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **lossless)
    with caplog.at_level(logging.WARNING, "guided.core.decode"):
        assert near(open_image(file), (5, 5), RED, 1)
    assert "several frames or pages; only the first is used" in caplog.text
    assert file.name in caplog.text
    caplog.clear()
    frames[0].save(file, kind)
    open_image(file)
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_a_truncated_file(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    file = tmp_path / "cut.img"
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError) as caught:
        open_image(file)
    assert str(file) in str(caught.value)
    assert "download it again" in caught.value.hint or "Formats:" in caught.value.hint


def test_small_and_long_and_empty_pictures() -> None:
    assert open_image(encoded(Image.new("RGB", (1, 1), BLUE), "PNG")).getpixel((0, 0)) == BLUE
    assert open_image(encoded(Image.new("L", (1, 20000), 9), "PNG")).size == (1, 20000)
    for data in (png(0, 0, 8, 2), png(0, 5, 8, 2)):
        with pytest.raises(ImageError):
            open_image(data)
    with pytest.raises(ImageError, match=r"x\.png is 0 x 7: it has no pixels"):
        check_size("x.png", (0, 7), 100)
    with pytest.raises(ImageError, match="a side is longer than 65535"):
        open_image(encoded(Image.new("L", (66000, 1)), "PNG"))


def test_the_pixel_limit_comes_from_the_header() -> None:
    large = png(9000, 9000, 8, 2)  # no pixel in it at all
    with pytest.raises(
        ImageError, match=r"It is 9000 x 9000, more than the limit of 64 megapixels"
    ):
        open_image(large)
    small = encoded(Image.new("RGB", (100, 100)), "PNG")
    with pytest.raises(ImageError, match=r"limit of 0\.0099 megapixels.*max_pixels"):
        open_image(small, max_pixels=9900)
    assert open_image(small, max_pixels=10000).size == (100, 100)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no/such/file.png", "no/such/file.png does not exist"),
        ("https://example.org/a.png", "is a web address; only local files are opened"),
        ("a\0b.png", "'a.x00b.png' does not exist"),
        ("x" * 5000, "File name too long"),
        ("", "is a folder"),
        ("/dev/zero", "is not a regular file"),
        (b"", "is empty"),
        (b"plain text, no picture", "not a picture in a format that is read here"),
        (io.StringIO("text"), 'was opened as text. Open it with mode "rb"'),
        (17, "not by int"),
    ],
)
def test_things_that_are_no_picture(source: object, said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        open_image(source)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 600


def test_formats_that_would_start_another_program_are_not_opened() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageError, match="not a picture in a format that is read here"):
        open_image(eps)


@pytest.mark.parametrize(
    "mode",
    [
        *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"),
        *("HSV", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"),
    ],
)
def test_every_mode_of_pillow_has_a_rule(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    before = image.tobytes()
    assert (to_rgb(image).mode, to_rgb(image).size) == ("RGB", (3, 2))
    assert to_rgb(image) is not image
    assert image.tobytes() == before


def test_paths_bytes_and_files_give_the_same(tmp_path: Path) -> None:
    data = encoded(corners(), "PNG")
    file = tmp_path / "odd name äß 🎨 ..png"
    file.write_bytes(data)
    wanted = open_image(data).tobytes()
    assert open_image(file).tobytes() == wanted
    assert open_image(str(file)).tobytes() == wanted
    with file.open("rb") as stream:
        assert open_image(stream).tobytes() == wanted


def test_no_metadata_survives() -> None:
    image = open_image(encoded(corners(), "PNG", icc_profile=b"x" * 200, dpi=(300, 300)))
    assert image.info == {}


def test_warning_filters_are_as_before_after_parallel_opening() -> None:
    data = encoded(Image.new("RGB", (200, 200), RED), "JPEG")
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [open_image(data) for _ in range(20)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_our_own_error_is_not_taken_for_a_decoder_error() -> None:
    assert not issubclass(ImageError, DECODER_ERRORS)
