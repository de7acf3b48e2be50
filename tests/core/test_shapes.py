"""expect: what passes, what is said otherwise."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guided.core.shapes import expect
from guided.errors import ShapeError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_letters_take_any_size(sizes: list[int]) -> None:
    letters = "abcd"[: len(sizes)]
    found = expect(torch.zeros(sizes), " ".join(letters), "x")
    assert list(found.values()) == sizes


def test_numbers_must_match_and_letters_must_agree() -> None:
    assert expect(torch.zeros(2, 3, 5, 5), "b 3 n n", "x") == {"b": 2, "n": 5}
    for shape in ((2, 4, 5, 5), (2, 3, 5, 6), (2, 3, 5), (3, 5, 5), (1, 2, 3, 5, 5)):
        said = re.escape(f"images must have the shape [b, 3, n, n], not {list(shape)}")
        with pytest.raises(ShapeError, match=said):
            expect(torch.zeros(shape), "b 3 n n", "images")


def test_leading_dots_stand_for_any_axes() -> None:
    for shape in ((7,), (2, 7), (1, 2, 3, 7)):
        assert expect(torch.zeros(shape), "... d", "x") == {"d": 7}
    with pytest.raises(ShapeError, match=r"\[\.\.\., 2, d\], not \[7\]"):
        expect(torch.zeros(7), "... 2 d", "x")
    assert expect(torch.zeros(()), "...", "x") == {}
    with pytest.raises(ShapeError):
        expect(torch.zeros(()), "d", "x")
