from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guided.errors import ShapeError
from guided.judging.retrieval import (
    ZeroShotTable,
    both_ways,
    near_misses,
    rate,
    retrieval,
    wrong_preferences,
    zero_shot,
)


def by_enumeration(scores: list[int], right: list[bool], k: int) -> tuple[float, float]:
    """Recall at k and mean rank over every order that sorts the scores."""
    n, hits, ranks, total = len(scores), 0, 0, 0
    for order in itertools.permutations(range(n)):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            first = next(i for i, item in enumerate(order) if right[item])
            hits, ranks, total = hits + (first < k), ranks + first + 1, total + 1
    return hits / total, ranks / total


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_count_as_a_random_order_would(pairs: list[tuple[int, bool]]) -> None:
    scores, right = [p[0] for p in pairs], [p[1] for p in pairs]
    right[0] = True
    found = retrieval(torch.tensor([scores]).float(), torch.tensor([right]), ks=(1, 2, 4))
    for k in (1, 2, 4):
        expected, rank = by_enumeration(scores, right, k)
        assert found.recall[k].value == pytest.approx(expected, abs=1e-9)
    assert found.mean_rank == pytest.approx(rank, abs=1e-9)


def test_equal_scores_are_chance() -> None:
    found = retrieval(torch.zeros(50, 50), ks=(1, 10, 100))
    assert found.recall[1].value == pytest.approx(1 / 50)
    assert found.recall[10].value == pytest.approx(10 / 50)
    assert found.recall[100].value == 1
    assert found.median_rank == pytest.approx(25.5)


def test_ranks_without_ties() -> None:
    scores = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]])
    found = retrieval(scores, ks=(1, 2, 3))
    assert [found.recall[k].value for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert (found.median_rank, found.mean_rank) == (2, 2)


def test_both_ways_with_two_right_texts_an_image() -> None:
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.8, 0.2]])
    right = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    found = both_ways(images, texts, right, ks=(1,))
    assert found["image_to_text"].recall[1].value == 1
    assert found["text_to_image"].recall[1].value == 0.75


def test_the_interval_is_wilsons() -> None:
    # 8 of 10: the textbook values of Wilson's score interval at 95 %.
    found = rate(torch.tensor([1.0] * 8 + [0.0] * 2))
    assert (found.low, found.high) == (
        pytest.approx(0.4902, abs=1e-4),
        pytest.approx(0.9433, abs=1e-4),
    )
    assert rate(torch.ones(20)).low == pytest.approx(0.8389, abs=1e-4)
    assert math.isnan(rate(torch.zeros(0)).value)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.93])
def test_the_interval_covers_the_truth(p: float) -> None:
    draws = torch.rand(2000, 100, generator=torch.Generator().manual_seed(0)) < p
    rates = [rate(row.float()) for row in draws]
    covered = sum(r.low <= p <= r.high for r in rates) / len(rates)
    assert 0.93 <= covered <= 0.98


def test_zero_shot_by_class() -> None:
    scores = torch.tensor([[2.0, 1, 0], [1, 1, 0], [0, 2, 1], [0, 2, 1]])
    found = zero_shot(scores, torch.tensor([0, 0, 1, 2]), ["cat", "dog", "owl"])
    assert found.accuracy.value == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found.by_class["cat"].value == 0.75
    assert found.confusion.sum() == 4
    assert found.confusion[2].tolist() == [0, 1, 0]


def test_the_table_names_the_worst() -> None:
    truth = torch.tensor([0, 1])
    table = ZeroShotTable({
        "hat": zero_shot(torch.eye(2), truth, ["cap", "none"]),
        "eyes": zero_shot(torch.tensor([[1.0, 0], [1, 0]]), truth, ["blue", "green"]),
    })  # fmt: skip
    assert table.mean == 0.75
    assert table.worst == ("eyes", 0.5)
    assert "| eyes | 0.500 [" in table.markdown()
    assert "green 0.000" in table.markdown()


def test_near_misses() -> None:
    images = torch.eye(3)
    right = torch.eye(3)[:, None]
    wrong = torch.eye(3).roll(1, 0)[:, None]
    candidates = torch.cat([right, wrong, wrong], dim=1)
    assert near_misses(images, candidates).value == 1
    candidates[0, 1] = candidates[0, 0]
    assert near_misses(images, candidates).value == pytest.approx((0.5 + 1 + 1) / 3)
    assert near_misses(images, candidates.flip(1)).value == pytest.approx(0)


def test_wrong_preferences() -> None:
    true, false = torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.0, 2, 5, 1])
    assert wrong_preferences(true, false).value == pytest.approx(1.5 / 4)


@pytest.mark.parametrize(
    ("scores", "right", "message"),
    [
        (torch.zeros(2, 3), None, "2 queries and 3 candidates"),
        (torch.zeros(2, 2), torch.tensor([[1, 0], [0, 0]]), "some have none"),
        (torch.full((1, 1), float("nan")), None, "must be finite"),
        (torch.zeros(2, 2), torch.eye(3), "right must have the shape"),
    ],
)
def test_what_cannot_be_judged(scores: Tensor, right: Tensor | None, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        retrieval(scores, right)


def test_classes_that_are_not_there() -> None:
    with pytest.raises(ShapeError, match=r"truth must lie in \[0, 2\)"):
        zero_shot(torch.zeros(1, 2), torch.tensor([2]), ["a", "b"])
