"""Moves on the sphere: exact ends, unit norm, arcs in equal steps, hard cases."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from guided.errors import ShapeError
from guided.guidance.slerp import slerp, slerp_noise, slerp_towards
from tests.helpers.small_unclip import unit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_arc_has_exact_ends_unit_norm_and_equal_steps(dtype: torch.dtype) -> None:
    one, two = unit(4, 1).to(dtype), unit(4, 2).to(dtype)
    assert torch.equal(slerp(one, two, 0.0), one)
    assert torch.equal(slerp(one, two, 1.0), two)
    way = [slerp(one, two, share / 8) for share in range(9)]
    for place in way:
        torch.testing.assert_close(place.norm(dim=1), torch.ones(4, dtype=dtype))
    turns = [(a * b).sum(1).clamp(-1, 1).acos() for a, b in pairwise(way)]
    whole = (one * two).sum(1).acos() / 8
    for turn in turns:
        torch.testing.assert_close(turn, whole, atol=2e-3, rtol=1e-2)


def test_a_quarter_turn_in_closed_form() -> None:
    east, north = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1, 0]])
    found = slerp(east, north, 1 / 3)
    expected = torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6), 0]])
    torch.testing.assert_close(found, expected)
    beyond = slerp(east, north, torch.tensor([2.0]))
    torch.testing.assert_close(beyond, -east, atol=1e-6, rtol=0)


def test_nearly_parallel_and_opposite_vectors_have_an_arc() -> None:
    one = unit(2, 3)
    near = torch.nn.functional.normalize(one + 1e-7 * unit(2, 4), dim=1)
    for other in (one, near):
        middle = slerp(one, other, 0.5)
        torch.testing.assert_close(middle, one, atol=1e-6, rtol=0)
    middle = slerp(one, -one, 0.5)
    assert middle.isfinite().all()
    torch.testing.assert_close(middle.norm(dim=1), torch.ones(2))
    torch.testing.assert_close((middle * one).sum(1), torch.zeros(2), atol=1e-6, rtol=0)


def test_rows_have_shares_of_their_own() -> None:
    one, two = unit(3, 1), unit(3, 2)
    shares = torch.tensor([0.0, 0.3, 1.0])
    mixed = slerp(one, two, shares)
    for row, share in enumerate(shares.tolist()):
        assert torch.equal(mixed[row], slerp(one, two, share)[row])
    with pytest.raises(ShapeError, match="2 shares"):
        slerp(one, two, torch.zeros(2))
    with pytest.raises(ShapeError, match="alike"):
        slerp(one, two[:, :5], 0.5)


def test_noise_keeps_its_length_on_the_way() -> None:
    stream = torch.Generator().manual_seed(0)
    one, two = (torch.randn(2, 4, 8, 8, generator=stream) for _ in range(2))
    assert torch.equal(slerp_noise(one, two, 0.0), one)
    assert torch.equal(slerp_noise(one, two, 1.0), two)
    lengths = [each.flatten(1).norm(dim=1) for each in (one, two)]
    middle = slerp_noise(one, two, 0.5).flatten(1).norm(dim=1)
    torch.testing.assert_close(middle, (lengths[0] + lengths[1]) / 2)
    early = slerp_noise(one, 3 * two, 0.25).flatten(1).norm(dim=1)
    torch.testing.assert_close(early, 0.75 * lengths[0] + 0.25 * 3 * lengths[1])
    assert float(((one + two) / 2).flatten(1).norm(dim=1).max()) < 0.8 * float(middle.min())


def test_a_turn_goes_a_part_of_a_right_angle_and_never_past_its_aim() -> None:
    one, two = unit(3, 1), unit(3, 2)
    whole = (one * two).sum(1).acos()
    found = slerp_towards(one, two, 0.25)
    torch.testing.assert_close((found * one).sum(1).acos(), torch.full((3,), torch.pi / 8))
    torch.testing.assert_close((found * two).sum(1).acos(), whole - torch.pi / 8)
    away = slerp_towards(one, two, -0.25)
    torch.testing.assert_close((away * two).sum(1).acos(), whole + torch.pi / 8)
    assert torch.equal(slerp_towards(one, one, 0.5), one)
    near = torch.nn.functional.normalize(one + 0.1 * two, dim=1)
    torch.testing.assert_close(slerp_towards(one, near, 0.5), near)
