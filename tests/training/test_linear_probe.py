from __future__ import annotations

import itertools
import math

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from guided.errors import ShapeError
from guided.training.linear_probe import (
    SWEEP,
    Probe,
    fit_probe,
    search_strength,
    shot_curve,
    split,
)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, truth = load_digits(return_X_y=True)
    return torch.tensor(images[:200] / 16), torch.tensor(truth[:200])


@pytest.mark.parametrize("l2", [3.0, 30.0, 1000.0])
def test_it_is_scikit_learns_minimum(digits: tuple[Tensor, Tensor], l2: float) -> None:
    x, y = digits
    ours = fit_probe(x, y, 10, l2)
    theirs = LogisticRegression(C=1 / l2, max_iter=5000, tol=1e-8).fit(x.numpy(), y.numpy())
    assert ours.converged
    odds = torch.softmax(ours.logits(x), dim=1)
    torch.testing.assert_close(odds, torch.tensor(theirs.predict_proba(x)), rtol=0, atol=2e-4)
    torch.testing.assert_close(ours.weight, torch.tensor(theirs.coef_), rtol=0, atol=2e-3)


def test_two_points_in_closed_form() -> None:
    """With x = +-1 the slope w of each class solves 2 l2 w = sigmoid(-2 w) ... by symmetry."""
    x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
    probe = fit_probe(x, y, 2, 0.5)
    w = float(probe.weight[0, 0])
    assert probe.weight.flatten().tolist() == pytest.approx([w, -w])
    assert 0.5 * w == pytest.approx(2 / (1 + math.exp(2 * w)), abs=1e-6)
    assert probe.bias.abs().max() < 1e-6


def test_a_start_does_not_change_the_end(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    near = fit_probe(x, y, 10, 30.0)
    torch.testing.assert_close(
        fit_probe(x, y, 10, 10.0, start=near).weight, fit_probe(x, y, 10, 10.0).weight,
        rtol=0, atol=1e-4,
    )  # fmt: skip


def test_the_sweep_is_the_papers() -> None:
    assert SWEEP[0] == pytest.approx(1e-6)
    assert SWEEP[-1] == pytest.approx(1e6)
    assert len(SWEEP) - 1 == 96
    ratios = [b / a for a, b in itertools.pairwise(SWEEP)]
    assert ratios == pytest.approx([10 ** (1 / 8)] * 96)


def test_the_search_finds_the_peak_in_few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(features: Tensor, truth: Tensor, classes: int, l2: float, **_: object) -> Probe:
        return Probe(torch.tensor([[l2]]), torch.zeros(1), l2)

    def accuracy(self: Probe, *_: object) -> float:
        return -abs(math.log10(self.l2) - 1.4)

    monkeypatch.setattr("guided.training.linear_probe.fit_probe", fake)
    monkeypatch.setattr(Probe, "accuracy", accuracy)
    nothing = (torch.zeros(0), torch.zeros(0))
    found, trials = search_strength(nothing, nothing, 2)
    assert found == pytest.approx(10**1.375)
    assert len(trials) == 7 + 2 * 4
    assert [t.l2 for t in trials] == sorted(t.l2 for t in trials)


def test_of_equal_strengths_the_strongest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "accuracy", lambda *_: 1.0)
    x, y = torch.randn(8, 2), torch.arange(8) % 2
    found, _ = search_strength((x, y), (x, y), 2)
    assert found == SWEEP[-1]


def test_a_split_keeps_every_class_on_both_sides() -> None:
    truth = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
    kept, held = split(truth, 0.2, torch.Generator().manual_seed(0))
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(63))
    assert torch.bincount(truth[held], minlength=4).tolist() == [10, 2, 1, 0]
    again = split(truth, 0.2, torch.Generator().manual_seed(0))
    assert torch.equal(again[1], held)
    assert not torch.equal(split(truth, 0.2, torch.Generator().manual_seed(1))[1], held)


def test_more_shots_are_better(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    kept, held = split(y, 0.3, torch.Generator().manual_seed(0))
    train, test = (x[kept], y[kept]), (x[held], y[held])
    curve = list(shot_curve(train, test, 10, 1.0, shots=(1, 8, 999)))
    assert [point.shots for point in curve] == [1, 8]
    assert 0.3 < curve[0].accuracy < curve[1].accuracy
    assert curve[0].deviation > 0
    assert curve == list(shot_curve(train, test, 10, 1.0, shots=(1, 8)))


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ShapeError, match="finite numbers"):
        fit_probe(torch.full((2, 2), float("nan")), torch.tensor([0, 1]), 2, 1.0)
    with pytest.raises(ShapeError, match="at least one row"):
        fit_probe(torch.zeros(0, 2), torch.zeros(0), 2, 1.0)
    with pytest.raises(ShapeError, match="truth must have the shape"):
        fit_probe(torch.zeros(3, 2), torch.zeros(2), 2, 1.0)
