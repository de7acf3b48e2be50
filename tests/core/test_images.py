"""Pictures to tensors and back, resizing, cropping, contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from guided.core.images import center_square, grid, resize, resize_tensor, to_images, to_tensor
from guided.errors import ImageError, ShapeError


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_round_trip_is_exact_for_every_byte() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], -1))
    tensor = to_tensor([image, noise(16, 16)])
    assert tensor.shape == (2, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (float(tensor.min()), float(tensor.max())) == (0.0, 1.0)
    back = to_images(tensor)
    assert back[0].tobytes() == image.tobytes()
    assert back[1].tobytes() == noise(16, 16).tobytes()


def test_axes_are_channel_row_column() -> None:
    image = Image.new("RGB", (5, 3))
    image.putpixel((4, 1), (255, 51, 0))
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 3, 5)
    assert tensor[0, :, 1, 4].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert float(tensor.sum()) == pytest.approx(1.2)


def test_to_images_rounds_half_up_and_clamps() -> None:
    values = torch.tensor([-3.0, 0.5 / 255, 0.49 / 255, 1.5 / 255, 254.5 / 255, 7.0])
    image = to_images(values.view(1, 1, 1, 6).expand(1, 3, 1, 6))[0]
    assert [image.getpixel((x, 0))[0] for x in range(6)] == [0, 1, 0, 2, 255, 255]


def test_to_images_takes_other_precisions_and_gradients() -> None:
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert len(to_images(images)) == 2
    assert to_images(torch.zeros(0, 3, 4, 4)) == []
    assert to_images(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16))[0].getpixel((0, 0)) == (255,) * 3


def test_to_images_refuses_other_shapes_and_nan() -> None:
    with pytest.raises(ShapeError, match=r"images must have the shape"):
        to_images(torch.zeros(3, 4, 4))
    bad = torch.zeros(1, 3, 2, 2)
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(ShapeError, match="must be finite"):
        to_images(bad)


def test_to_tensor_refuses_none_and_mixed_sizes() -> None:
    with pytest.raises(ImageError, match="no picture"):
        to_tensor([])
    with pytest.raises(ImageError, match=r"4 x 4, 4 x 5.*center_square"):
        to_tensor([noise(4, 5), noise(4, 4)])


def test_to_tensor_converts_other_modes() -> None:
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    grey = Image.new("L", (2, 2), 51)
    tensor = to_tensor([clear, grey])
    assert float(tensor[0].min()) == 1.0
    assert tensor[1].unique().tolist() == pytest.approx([0.2])


def test_resize_is_antialiased() -> None:
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert(
        "RGB"
    )
    small = np.asarray(resize(checks, (16, 16))).astype(int)[2:-2, 2:-2]
    assert abs(small - 127).max() <= 3
    assert resize(checks, (7, 9)).size == (7, 9)
    same = resize(checks, (64, 64))
    assert same.tobytes() == checks.tobytes()
    assert same is not checks
    with pytest.raises(ImageError, match="cannot be resized to 0 x 3"):
        resize(checks, (0, 3))


def test_resize_tensor_agrees_with_the_filter_and_has_gradients() -> None:
    images = to_tensor(noise(32, 20)).requires_grad_()
    small = resize_tensor(images, (8, 10))
    assert small.shape == (1, 3, 10, 8)
    assert float(small.detach().min()) >= 0
    assert float(small.detach().max()) <= 1
    (slope,) = torch.autograd.grad(small.sum(), images)
    assert float(slope.abs().sum()) > 0
    assert resize_tensor(images, (32, 20)) is images
    flat = torch.full((1, 3, 9, 9), 0.3)
    assert torch.allclose(resize_tensor(flat, (4, 5)), torch.tensor(0.3), atol=1e-6)
    with pytest.raises(ImageError, match="cannot be resized to 8 x 0"):
        resize_tensor(images, (8, 0))
    with pytest.raises(ShapeError, match="b, 3, h, w"):
        resize_tensor(torch.zeros(1, 1, 4, 4), (2, 2))


def test_center_square() -> None:
    image = Image.new("RGB", (30, 10), (255, 0, 0))
    image.paste((0, 0, 255), (10, 0, 20, 10))
    square = center_square(image)
    assert square.size == (10, 10)
    assert square.getcolors() == [(100, (0, 0, 255))]
    assert center_square(image, 4).size == (4, 4)
    assert center_square(noise(7, 12)).size == (7, 7)


def test_grid_places_every_picture() -> None:
    colors = [(10 * i, 0, 255 - 10 * i) for i in range(5)]
    sheet = grid([Image.new("RGB", (8, 6), color) for color in colors], columns=3, gap=2)
    assert sheet.size == (3 * 10 + 2, 2 * 8 + 2)
    for i, color in enumerate(colors):
        assert sheet.getpixel((2 + i % 3 * 10 + 4, 2 + i // 3 * 8 + 3)) == color
    assert sheet.getpixel((0, 0)) == (255, 255, 255)
    assert sheet.getpixel((29, 14)) == (255, 255, 255)  # the sixth cell stays empty


@pytest.mark.parametrize(("count", "across"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_grid_is_nearly_square_by_default(count: int, across: int) -> None:
    sheet = grid([noise(4, 4, i) for i in range(count)], gap=0)
    assert sheet.width == across * 4


def test_grid_refuses_nothing_and_no_columns() -> None:
    with pytest.raises(ImageError, match="no picture to lay out"):
        grid([])
    with pytest.raises(ImageError, match="at least 1 column"):
        grid([noise(2, 2)], columns=0)
