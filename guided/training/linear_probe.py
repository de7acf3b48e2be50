"""Logistic regression on frozen features: how much of a task is in them already.

The protocol is that of the CLIP paper: L-BFGS for at most 1,000 iterations, the L2 strength found
on a validation part by a coarse-to-fine search over 96 log-spaced values in [1e-6, 1e6].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from guided.core.seeds import seed_at
from guided.core.shapes import expect
from guided.errors import ShapeError

ITERATIONS = 1000
_ROUGH = 1e-5
STEPS_PER_DECADE = 8
SWEEP = tuple(10.0 ** (-6 + i / STEPS_PER_DECADE) for i in range(12 * STEPS_PER_DECADE + 1))
"""The 97 ends of 96 log-spaced intervals over [1e-6, 1e6]: eight a decade."""


@dataclass(frozen=True)
class Probe:
    """A linear classifier: logits = features @ weight.T + bias; ``l2`` is its strength.

    ``weight`` [C, D] and ``bias`` [C] are float64; ``converged`` is False where the iterations ran
    out before the gradient was small.
    """

    weight: Tensor
    bias: Tensor
    l2: float
    converged: bool = True

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C], float64, of features [N, D]."""
        return functional.linear(features.to(self.weight), self.weight, self.bias)

    def accuracy(self, features: Tensor, truth: Tensor) -> float:
        """The share of features [N, D] whose largest logit is that of their class [N]."""
        hits = self.logits(features).argmax(dim=1) == truth.to(self.weight.device)
        return float(hits.double().mean())


def fit_probe(
    features: Tensor,
    truth: Tensor,
    classes: int,
    l2: float,
    *,
    start: Probe | None = None,
    tolerance: float = 1e-7,
) -> Probe:
    """The logistic regression that minimises  sum_n CE_n + l2 / 2 |W|^2.

    The bias is not penalised.  Features [N, D] in any precision, classes [N] in [0, classes).
    With C = 1 / l2 this is the objective of scikit-learn's LogisticRegression.  ``start`` is a
    nearby solution to begin with; the minimum is the same.  ``tolerance`` is the largest slope (of
    the mean loss) that counts as the minimum.

    Raises:
        ShapeError: shapes that do not fit, no feature, values that are not finite.
    """
    sizes = expect(features, "n d", "features")
    expect(truth, f"{sizes['n']}", "truth")
    if not sizes["n"] or not bool(torch.isfinite(features).all()):
        raise ShapeError("features must be at least one row of finite numbers.")
    x = features.detach().double()
    y = functional.one_hot(truth.long().to(x.device), classes).double()
    shape = (classes, sizes["d"] + 1)
    flat = torch.zeros(shape, dtype=torch.float64, device=x.device)
    if start is not None:
        flat = torch.cat([start.weight, start.bias[:, None]], dim=1).clone()
    n = len(x)

    def loss_and_slope(parameters: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = parameters[:, :-1], parameters[:, -1]
        logs = functional.log_softmax(functional.linear(x, weight, bias), dim=1)
        loss = -(y * logs).sum() / n + l2 / (2 * n) * weight.square().sum()
        error = (logs.exp() - y) / n
        slope = torch.cat([error.T @ x + l2 / n * weight, error.sum(0)[:, None]], dim=1)
        return loss, slope

    solution, converged = _minimise(loss_and_slope, flat, tolerance)
    return Probe(solution[:, :-1], solution[:, -1], l2, converged)


def _minimise(
    loss_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, tolerance: float
) -> tuple[Tensor, bool]:
    """The minimum of a smooth convex function by L-BFGS with a strong Wolfe line search."""
    place = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS(
        [place],
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        tolerance_grad=tolerance,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        with torch.no_grad():
            loss, slope = loss_and_slope(place)
        place.grad = slope
        return float(loss)

    solver.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.no_grad():
        _, slope = loss_and_slope(place)
    return place.detach(), float(slope.abs().max()) <= max(1e-5, tolerance)


@dataclass(frozen=True)
class Trial:
    """A strength that was tried and its accuracy on the validation part."""

    l2: float
    accuracy: float


def search_strength(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], classes: int
) -> tuple[float, list[Trial]]:
    """The L2 strength with the best validation accuracy, and every trial in order of strength.

    Begins with seven values two decades apart, then halves the step around the best until it is
    an eighth of a decade.  Of equal accuracies the strongest wins.

    Source: Radford et al. 2021, appendix A.3.
    """
    tried: dict[int, Trial] = {}

    def attempt(index: int) -> None:
        if 0 <= index < len(SWEEP) and index not in tried:
            near = min(fitted, key=lambda other: abs(other - index), default=None)
            warm = fitted[near] if near is not None else None
            probe = fit_probe(*train, classes, SWEEP[index], start=warm, tolerance=_ROUGH)
            fitted[index] = probe
            tried[index] = Trial(SWEEP[index], probe.accuracy(*validation))

    fitted: dict[int, Probe] = {}
    step = 2 * STEPS_PER_DECADE
    for index in range(len(SWEEP) - 1, -1, -step):
        attempt(index)
    while step > 1:
        step //= 2
        best = _best(tried)
        attempt(best - step)
        attempt(best + step)
    return SWEEP[_best(tried)], [tried[index] for index in sorted(tried)]


def _best(tried: dict[int, Trial]) -> int:
    return max(tried, key=lambda index: (tried[index].accuracy, index))


def split(truth: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows [n] to keep and rows [m] to hold out: ``share`` of each class [N], at least one each.

    A class with one row keeps it.
    """
    kept, held = [], []
    for value in torch.unique(truth):
        rows = torch.nonzero(truth == value).flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held.append(rows[:count])
        kept.append(rows[count:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


@dataclass(frozen=True)
class Shots:
    """Test accuracy with a few training rows a class: the mean over draws, and their spread.

    ``deviation`` is the standard deviation over the draws (0 for one draw).
    """

    shots: int
    accuracy: float
    deviation: float
    draws: int


def shot_curve(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    l2: float,
    *,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    draws: int = 3,
    seed: int = 0,
) -> Iterator[Shots]:
    """The accuracy with 1, 2, 4, 8 and 16 rows a class, each the mean of some random draws.

    A number of shots that the smallest class does not have is left out.  The strength is scaled
    with the number of rows, so that the penalty weighs against the data as in the full fit.
    """
    features, truth = train
    smallest = int(torch.bincount(truth, minlength=classes).min())
    for count in shots:
        if count > smallest:
            continue
        results = []
        for draw in range(draws):
            generator = torch.Generator().manual_seed(seed_at(seed * 1000, draw))
            rows = torch.cat([
                members[torch.randperm(len(members), generator=generator)[:count]]
                for members in (torch.nonzero(truth == c).flatten() for c in range(classes))
            ])  # fmt: skip
            strength = l2 * len(rows) / len(truth)
            probe = fit_probe(features[rows], truth[rows], classes, strength, tolerance=_ROUGH)
            results.append(probe.accuracy(*test))
        mean = sum(results) / draws
        deviation = math.sqrt(sum((r - mean) ** 2 for r in results) / max(1, draws - 1))
        yield Shots(count, mean, deviation, draws)
