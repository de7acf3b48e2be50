from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guided.errors import UsageError
from guided.guidance.decode import Beams, Proposal, Rows, Search, decode
from guided.guidance.logits_processors import LogitBias, LogitScale

END = 3


class Table:
    """A guide whose log-probabilities depend on the last token and the owner alone."""

    def __init__(self, samples: int, vocabulary: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.table = torch.randn(samples, vocabulary, vocabulary, generator=draw).log_softmax(-1)
        self.seen: list[Rows] = []

    def propose(self, rows: Rows) -> Proposal:
        self.seen.append(rows)
        return Proposal(self.table[rows.owner, rows.tokens[:, -1]])


def last(prompts: Tensor, guide: object, search: Search) -> Beams:
    *_, step = decode(prompts, guide, search)  # type: ignore[arg-type]
    assert step.draft is not None
    return step.draft


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_first_tokens_are_the_likeliest(seed: int) -> None:
    guide = Table(1, 5, seed)
    beams = last(torch.tensor([[0]]), guide, Search(beams=5, steps=1, end=END)).ranked()
    assert beams.tokens[0, :, 1].tolist() == guide.table[0, 0].argsort(descending=True).tolist()


def score(table: Tensor, tokens: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
    """The mean log-probability of a sentence after token 0, cut at its end token."""
    total, before, said = 0.0, 0, []
    for token in tokens:
        total += float(table[before, token])
        said.append(token)
        before = token
        if token == END:
            break
    return total / len(said), tuple(said)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_full_width_search_is_exhaustive(seed: int) -> None:
    guide = Table(1, 4, seed)
    two = [score(guide.table[0], pair) for pair in product(range(4), repeat=2)]
    expected = sorted(set(two), reverse=True)[:4]
    found = last(torch.tensor([[0]]), guide, Search(beams=4, steps=2, end=END)).ranked()
    for place, (value, said) in enumerate(expected):
        assert float(found.scores[0, place]) == pytest.approx(value, abs=1e-5)
        assert tuple(found.written(0, place)) == said


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_samples_do_not_meet(seed: int, width: int) -> None:
    guide = Table(3, 6, seed)
    search = Search(beams=width, steps=4, end=END)
    together = last(torch.zeros(3, 1, dtype=torch.long), guide, search).ranked()
    for sample in range(3):
        alone = Table(3, 6, seed)
        alone.table = guide.table[sample : sample + 1]
        single = last(torch.zeros(1, 1, dtype=torch.long), alone, search).ranked()
        for beam in range(width):
            assert single.written(0, beam) == together.written(sample, beam)
            assert float(single.scores[0, beam]) == pytest.approx(
                float(together.scores[sample, beam]), abs=1e-5
            )


def test_finished_beams_are_not_shown_to_the_guide() -> None:
    guide = Table(1, 4, 0)
    guide.table = torch.full((1, 4, 4), -4.0)
    guide.table[0, :, END] = -0.1
    guide.table[0, 0, 1] = -0.2
    final = last(torch.tensor([[0]]), guide, Search(beams=2, steps=5, end=END))
    assert [len(rows.tokens) for rows in guide.seen] == [1, 1]
    assert bool(final.stopped.all())
    assert final.lengths.tolist() == [[1, 2]]
    assert final.ranked().written(0, 0) == [END]


def test_kept_finished_beams_change_nothing_but_the_work() -> None:
    for seed in range(6):
        plain, kept = Table(2, 5, seed), Table(2, 5, seed)
        prompts = torch.zeros(2, 1, dtype=torch.long)
        first = last(prompts, plain, Search(beams=3, steps=5, end=END)).ranked()
        second = last(prompts, kept, Search(beams=3, steps=5, end=END, keep_finished=True)).ranked()
        assert torch.equal(first.lengths, second.lengths)
        assert torch.allclose(first.scores, second.scores)
        assert [first.written(0, b) for b in range(3)] == [second.written(0, b) for b in range(3)]
        assert all(len(rows.tokens) == 6 for rows in kept.seen[1:])


def test_parents_lead_to_the_row_before() -> None:
    guide = Table(2, 6, 4)
    last(torch.zeros(2, 1, dtype=torch.long), guide, Search(beams=3, steps=5, end=END))
    for before, after in zip(guide.seen, guide.seen[1:], strict=False):
        assert torch.equal(before.tokens[after.parent], after.tokens[:, :-1])
        assert torch.equal(before.owner[after.parent], after.owner)


def test_merit_ranks_but_does_not_add_up() -> None:
    class Merited:
        def propose(self, rows: Rows) -> Proposal:
            flat = torch.full((len(rows.tokens), 4), -1.0)
            merit = torch.tensor([0.0, 0.5, 0.2, 0.1]).expand_as(flat)
            return Proposal(flat, merit)

    final = last(torch.tensor([[0]]), Merited(), Search(beams=1, steps=3, end=99, pad=0))
    assert final.written(0, 0) == [1, 1, 1]
    assert float(final.scores[0, 0]) == pytest.approx(-0.5)


@pytest.mark.parametrize(("beams", "steps", "match"), [(0, 3, "1 beam"), (2, 0, "1 token")])
def test_empty_searches_are_refused(beams: int, steps: int, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        last(torch.tensor([[0]]), Table(1, 4, 0), Search(beams=beams, steps=steps, end=END))


def test_more_beams_than_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match="5 beams cannot all differ with 4"):
        last(torch.tensor([[0]]), Table(1, 4, 0), Search(beams=5, steps=2, end=END))


def rows_of(tokens: list[list[int]], index: int) -> Rows:
    told = torch.tensor(tokens)
    zeros = torch.zeros(len(tokens), dtype=torch.long)
    return Rows(told, zeros, zeros, index, torch.ones(len(tokens), dtype=torch.bool))


def test_factors_follow_the_sign() -> None:
    shape = LogitScale(end=0, forbidden=(1,), end_factor=1.1, repetition=1.5, window=2)
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0], [-2.0, -2.0, -2.0, -2.0]])
    found = shape(logits, rows_of([[3, 2, 2], [2, 3, 3]], index=1))
    expected = [[2.2, 0.1, 2 / 1.5, 2.0], [-2 / 1.1, -40.0, -2.0, -3.0]]
    assert torch.allclose(found, torch.tensor(expected))
    first = shape(logits, rows_of([[3, 3, 3], [3, 3, 3]], index=0))
    assert first[:, 0].tolist() == pytest.approx([2 / 1.6, -3.2])


def test_nats_do_not_depend_on_the_level() -> None:
    shape = LogitBias(end=0, forbidden=(1,), end_bonus=0.7, repetition=0.4, window=2, shortest=2)
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    rows = rows_of([[3, 2, 2]], index=2)
    expected = torch.tensor([[1.7, float("-inf"), 2.6, 4.0]]).softmax(-1)
    assert torch.allclose(shape(logits, rows).softmax(-1), expected)
    assert torch.allclose(shape(logits - 50, rows).softmax(-1), expected, atol=1e-6)
    assert float(shape(logits, rows_of([[3, 2, 2]], index=1))[0, 0]) == float("-inf")
