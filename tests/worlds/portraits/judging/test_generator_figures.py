from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guided.core.device import Device
from guided.errors import ShapeError
from guided.worlds.portraits import KEYS, VALUES
from guided.worlds.portraits.attributes import chances
from guided.worlds.portraits.judging.generator_figures import (
    generator_figures,
    kernel_distance,
    real_pictures,
    spoiled,
    variation,
)
from guided.worlds.portraits.judging.reader import Reader, ReaderOutput


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load("reader", Device("cpu"))


@pytest.fixture(scope="module")
def real() -> Tensor:
    return real_pictures(96, 9_000_000)


def test_the_kernel_distance_is_the_sum_over_pairs_of_different_rows() -> None:
    stream = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 3, generator=stream), torch.randn(4, 3, generator=stream) + 1

    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        pairs = [
            (float(p @ q) / 3 + 1) ** 3
            for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)
        ]  # fmt: skip
        return math.fsum(pairs) / len(pairs)

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_the_kernel_distance_is_unbiased_and_grows_with_a_shift() -> None:
    stream = torch.Generator().manual_seed(1)
    same = [kernel_distance(*torch.randn(2, 40, 8, generator=stream).unbind()) for _ in range(60)]
    error = torch.tensor(same).std() / math.sqrt(len(same))
    assert abs(sum(same) / len(same)) < 4 * float(error)
    x, y = torch.randn(2, 200, 8, generator=stream).unbind()
    distances = [kernel_distance(x, y + shift) for shift in (0.0, 0.5, 1.0)]
    assert distances == sorted(distances)
    assert distances[2] > 10 * abs(distances[0])


def test_a_kernel_distance_needs_two_rows_of_one_width() -> None:
    with pytest.raises(ShapeError, match=r"2 or more features.*not \[1, 4\] and \[3, 4\]"):
        kernel_distance(torch.zeros(1, 4), torch.zeros(3, 4))


def test_variation_is_the_distance_of_shares_from_chances() -> None:
    only = {key: VALUES[key][0] for key in KEYS} | {"hat_color": None}
    readings = [ReaderOutput(dict(only), {}, 0.0) for _ in range(3)]
    found = variation(readings)
    for key in KEYS:
        if key != "hat_color":
            assert found[key] == pytest.approx(1 - chances(key)[0])
    assert found["hat_color"] == pytest.approx(0.5)  # no hat was read: no shares at all


@pytest.mark.soak
def test_real_pictures_come_before_spoilt_ones(reader: Reader, real: Tensor) -> None:
    known = reader.features(real_pictures(96, 9_100_000))
    rows = {name: generator_figures(reader, images, known)
            for name, images in {"real": real, **spoiled(real)}.items()}  # fmt: skip
    best = rows.pop("real")
    assert best.drawn > 0.9
    assert best.worst_variation < 0.5
    for row in rows.values():
        assert row.kid > best.kid
    for name in ("noise", "mean"):
        assert rows[name].kid > 5 * abs(best.kid)
        assert rows[name].drawn < best.drawn
    assert rows["blur"].confidence < best.confidence
    assert rows["mean"].spread == pytest.approx(0, abs=1e-5)
    assert rows["mean"].worst_variation > best.worst_variation
