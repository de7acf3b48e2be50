from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guided.core.boxes import box_resize
from guided.core.prompts import parse, text_direction
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


class Axes:
    """A scorer whose texts are letters along axes of their own."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([torch.eye(3)["abc".index(text)] for text in texts])


def test_a_text_direction_leads_from_what_is_shown_to_what_is_asked() -> None:
    scorer: Any = Axes()
    found = text_direction(scorer, ["b", "c"], ["a"])
    expected = torch.tensor([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]) / 2**0.5
    torch.testing.assert_close(found, expected)
    own = text_direction(scorer, ["b", "c"], ["a", "b"])
    torch.testing.assert_close(own[0], expected[0])
    torch.testing.assert_close(own[1], torch.tensor([0.0, -1.0, 1.0]) / 2**0.5)
    mixed = text_direction(scorer, ["b::3 | c::-1"], ["a"])
    wanted = 0.75 * torch.tensor([-1.0, 1.0, 0.0]) - 0.25 * torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(mixed[0], wanted / wanted.norm())
    paired = text_direction(scorer, ["b | c"], ["a | b"])
    torch.testing.assert_close(paired[0], torch.tensor([-1.0, 0.0, 1.0]) / 2**0.5)
    with pytest.raises(UsageError, match="has 3 texts"):
        text_direction(scorer, ["b | c"], ["a | b | c"])
    with pytest.raises(UsageError, match="'b' says what the picture shows: 'b'"):
        text_direction(scorer, ["c", "b"], ["a", "b"])
    with pytest.raises(UsageError, match="2 sources were given for 3 prompts"):
        text_direction(scorer, ["a", "b", "c"], ["a", "b"])
