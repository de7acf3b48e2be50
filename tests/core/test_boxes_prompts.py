from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.core.boxes import box_resize
from guided.core.prompts import parse
from guided.errors import UsageError


@pytest.mark.parametrize("size", [32, 64, 96, 256, 512])
def test_box_resize_is_repeating_seven_times_and_pooling(size: int) -> None:
    images = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(size))
    expected = F.avg_pool2d(F.interpolate(images, scale_factor=7), size // 32)
    assert torch.allclose(box_resize(images, 224), expected, atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_box_resize_keeps_the_mean_and_constants(height: int, width: int, size: int) -> None:
    images = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0))
    small = box_resize(images, size)
    assert small.shape == (1, 1, size, size)
    assert float(small.mean()) == pytest.approx(float(images.mean()), abs=1e-5)
    assert torch.allclose(box_resize(torch.ones_like(images), size), torch.ones(()), atol=1e-5)


def test_box_resize_to_the_same_size_changes_nothing() -> None:
    images = torch.rand(2, 3, 8, 6)
    assert torch.equal(box_resize(images, (8, 6)), images)


def test_prompts() -> None:
    assert parse("purple hair") == (("purple hair", 1.0),)
    assert parse(" a | b::0.5 |c:: -2") == (("a", 1.0), ("b", 0.5), ("c", -2.0))
    assert parse("ratio 3:2") == (("ratio 3:2", 1.0),)
    for bad in ("", "a | ", "a::x", "a::0", "a::nan", "::2"):
        with pytest.raises(UsageError, match=r"empty part|is not a number"):
            parse(bad)
