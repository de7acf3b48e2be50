"""FID, KID, precision and recall over any features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guided.errors import ShapeError
from guided.judging.distances import (
    compare,
    extract,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def images() -> tuple[Tensor, Tensor]:
    """Two sets of images that differ."""
    stream = torch.Generator().manual_seed(7)
    first = torch.rand(60, 3, 4, 4, generator=stream)
    return first, torch.rand(80, 3, 4, 4, generator=stream) ** 1.3


def network(batch: Tensor) -> Tensor:
    """A small extractor of the user's own: [B, 3, 4, 4] to [B, 12]."""
    weight = torch.randn(48, 12, generator=torch.Generator().manual_seed(5))
    return torch.tanh(batch.flatten(1).double() @ weight.double() * 0.3)


def test_the_values_are_those_of_torchmetrics() -> None:
    """torchmetrics 1.9, FrechetInceptionDistance and KernelInceptionDistance with ``feature=``."""
    first, second = (extract(each.split(32), network) for each in images())
    assert frechet_distance(first, second) == pytest.approx(0.2467571198940277, rel=1e-7)
    assert kernel_distance(first, second[:60]) == pytest.approx(0.026581764221191406, rel=1e-4)


def test_gaussians_are_as_far_as_the_formula_says() -> None:
    stream = torch.Generator().manual_seed(0)
    rows = torch.randn(200_000, 2, generator=stream, dtype=torch.float64)
    distance = frechet_distance(rows, rows.flip(0) * torch.tensor([3.0, 1.0]) + 2)
    assert distance == pytest.approx(2 * 2**2 + (3 - 1) ** 2, rel=0.02)


@pytest.mark.parametrize("count", [3, 40])
def test_equal_sets_are_at_distance_nought_also_with_few_rows(count: int) -> None:
    rows = torch.randn(count, 12, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-10)
    turned = rows @ torch.linalg.qr(torch.randn(12, 12)).Q
    assert frechet_distance(turned, -turned) == pytest.approx(
        frechet_distance(rows, -rows), rel=1e-4
    )


def test_a_collapsed_set_is_precise_and_recalls_nothing() -> None:
    stream = torch.Generator().manual_seed(2)
    real = torch.randn(300, 4, generator=stream)
    collapsed = real[:1] + 0.01 * torch.randn(300, 4, generator=stream)
    precision, recall = precision_recall(collapsed, real)
    assert precision == 1
    assert recall < 0.05
    fresh = precision_recall(torch.randn(300, 4, generator=stream), real)
    assert min(fresh) > 0.8


def test_a_floor_stands_beside_the_distances() -> None:
    first, second = (extract([each], network) for each in images())
    distances = compare(second, first)
    assert distances.count == 30
    assert distances.floor_fid < distances.fid
    assert distances.data()["kid"] == pytest.approx(kernel_distance(second[:30], first[:30]))
    half = compare(first[30:], first[:30].repeat(2, 1))
    assert half.floor_fid == pytest.approx(0, abs=1e-9)


def test_what_has_no_distance_is_refused() -> None:
    rows = torch.ones(5, 3)
    for one, other in ((rows[:1], rows), (rows, torch.ones(5, 4)), (rows[0], rows)):
        with pytest.raises(ShapeError, match="two sets of 2 or more features of one width"):
            frechet_distance(one, other)
    with pytest.raises(ShapeError, match="8 or more"):
        compare(rows, rows)
    with pytest.raises(ShapeError, match="one finite row"):
        extract([torch.zeros(2, 3, 4, 4)], lambda batch: batch)
    with pytest.raises(ShapeError, match="there are none"):
        extract([], network)
