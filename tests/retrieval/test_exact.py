from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from guided.errors import ShapeError, UsageError
from guided.retrieval import exact
from guided.retrieval.exact import Matrix, nearest_rows


def clustered(rows: int, width: int, seed: int = 0, spread: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(1, rows // 100), width, generator=generator)
    owner = torch.randint(len(centres), (rows,), generator=generator)
    noise = torch.randn(rows, width, generator=generator)
    return functional.normalize(centres[owner] + spread * noise, dim=1).half()


def exact_row() -> Tensor:
    """A unit vector [1, 16] whose product with itself is 1 in whatever order it is summed.

    Products of equal rows may else differ in their last bit, by the place in the matrix.
    """
    return torch.where(torch.rand(1, 16) < 0.5, -0.25, 0.25).half()


def plain(vectors: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    scores = queries @ vectors.float().T
    best, rows = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :count], rows[:, :count]


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    monkeypatch.setitem(exact._quick, "cpu", request.param)
    return request.param


@pytest.mark.parametrize(
    ("rows", "count"), [(5000, 1), (9999, 10), (20000, 37), (300, 10), (7, 10)]
)
def test_the_answer_is_the_float32_one(quick: torch.dtype, rows: int, count: int) -> None:
    vectors = clustered(rows, 32)
    queries = functional.normalize(
        vectors[torch.arange(9) % rows].float() + 0.05 * torch.randn(9, 32), dim=1
    )
    matrix = Matrix.of(vectors)
    assert matrix.quick.dtype == quick
    scores, found = nearest_rows(matrix, queries, count)
    expected, _ = plain(vectors, queries, count)
    assert found.shape == (9, min(rows, count))
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close((vectors[found].float() * queries[:, None]).sum(-1), scores)
    assert all(len(set(row.tolist())) == len(row) for row in found)


def test_rows_closer_than_bf16_can_tell(quick: torch.dtype) -> None:
    """Thousands of rows within the rounding error of each other: only float32 can rank them."""
    generator = torch.Generator().manual_seed(0)
    base = functional.normalize(torch.randn(64, generator=generator), dim=0)
    vectors = (base + 0.001 * torch.randn(8000, 64, generator=generator)).half()
    scores, _ = nearest_rows(Matrix.of(vectors), base[None], 5)
    expected, _ = plain(vectors, base[None], 5)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def test_the_error_bound_holds() -> None:
    for seed in range(5):
        vectors = clustered(4000, 512, seed)
        queries = functional.normalize(torch.randn(8, 512), dim=1)
        rough = (vectors.bfloat16() @ queries.bfloat16().T).float()
        gap = (rough - vectors.float() @ queries.T).abs().max()
        assert float(gap) < exact._ERROR[torch.bfloat16]


def test_equal_rows_come_in_order(quick: torch.dtype) -> None:
    row = exact_row()
    vectors = torch.cat([clustered(6000, 16), row, clustered(50, 16, 1), row, row])
    _, found = nearest_rows(Matrix.of(vectors), row.float(), 3)
    assert found[0].tolist() == [6000, 6051, 6052]


@pytest.mark.parametrize("share", [2, 3, 50])
def test_a_filter_is_exact_too(quick: torch.dtype, share: int) -> None:
    vectors, queries = clustered(12000, 16), torch.randn(4, 16)
    rows = torch.arange(0, 12000, share)
    scores, found = nearest_rows(Matrix.of(vectors), queries, 10, rows.flip(0))
    expected, _ = plain(vectors[rows], queries, 10)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)
    assert bool((found % share == 0).all())


def test_a_filter_that_leaves_a_corner(quick: torch.dtype) -> None:
    """All allowed rows in few blocks: most blocks hold nothing that counts."""
    vectors, queries = clustered(40000, 16), torch.randn(3, 16)
    rows = torch.arange(33000, 39000)
    scores, found = nearest_rows(Matrix.of(vectors), queries, 20, rows)
    expected, _ = plain(vectors[rows], queries, 20)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)
    assert bool(((found >= 33000) & (found < 39000)).all())


def test_many_queries_go_in_groups(quick: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = clustered(6000, 16), torch.randn(7, 16)
    whole = nearest_rows(Matrix.of(vectors), queries, 3)
    monkeypatch.setattr(exact, "_ELEMENTS", 2 * 6016)
    for a, b in zip(nearest_rows(Matrix.of(vectors), queries, 3), whole, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_to_find() -> None:
    empty = Matrix.of(torch.zeros(0, 16))
    scores, rows = nearest_rows(empty, torch.randn(2, 16), 5)
    assert scores.shape == rows.shape == (2, 0)
    matrix = Matrix.of(clustered(100, 16))
    assert nearest_rows(matrix, torch.randn(2, 16), 5, torch.tensor([]).long())[0].shape == (2, 0)
    assert nearest_rows(matrix, torch.zeros(0, 16), 5)[0].shape == (0, 5)


def test_what_cannot_be_asked() -> None:
    matrix = Matrix.of(clustered(100, 16))
    with pytest.raises(UsageError, match="at least 1, not 0"):
        nearest_rows(matrix, torch.randn(1, 16), 0)
    with pytest.raises(ShapeError, match=r"queries must have the shape \[q, 16\]"):
        nearest_rows(matrix, torch.randn(1, 15), 3)
    with pytest.raises(ShapeError, match="must be finite"):
        nearest_rows(matrix, torch.full((1, 16), float("nan")), 3)


def test_the_rows_that_fill_the_last_block_are_no_answers(quick: torch.dtype) -> None:
    """Where all cosines are below 0, a row of zeros would be the best of all."""
    vectors = functional.normalize(1 + 0.1 * torch.randn(5000, 16), dim=1).half()
    query = -functional.normalize(torch.ones(2, 16), dim=1)
    scores, found = nearest_rows(Matrix.of(vectors), query, 5)
    expected, rows = plain(vectors, query, 5)
    assert float(expected.max()) < -0.5
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    assert torch.equal(found, rows)


@pytest.mark.parametrize("count", [3000, 12000], ids=["every row", "candidates"])
def test_hundreds_of_equal_rows_come_in_order(quick: torch.dtype, count: int) -> None:
    row = exact_row()
    vectors = clustered(count, 16)
    places = torch.randperm(count)[:900].sort().values
    vectors[places] = row
    _, found = nearest_rows(Matrix.of(vectors), row.float(), 40)
    assert found[0].tolist() == places[:40].tolist()


def test_long_rows_closer_than_bf16_can_tell(quick: torch.dtype) -> None:
    """The error of a product grows with the length of its rows, which need not be 1.

    bf16 tells products of about 30 apart in steps of 1/8; some length puts these between two.
    """
    base, noise = functional.normalize(torch.randn(64), dim=0), torch.randn(5000, 64)
    for length in torch.linspace(30, 30.125, 9).tolist():
        vectors = (length * base + 0.01 * noise).half()
        scores, _ = nearest_rows(Matrix.of(vectors), base[None], 5)
        expected, _ = plain(vectors, base[None], 5)
        torch.testing.assert_close(scores, expected, rtol=0, atol=2e-5)


def test_equal_rows_of_a_filter_come_in_order_however_it_is_given(quick: torch.dtype) -> None:
    row = exact_row()
    matrix = Matrix.of(row.expand(12000, 16))
    for rows in (torch.arange(0, 12000, 50), torch.arange(0, 12000, 2)):
        _, found = nearest_rows(matrix, row.float(), 9, rows.flip(0))
        assert found[0].tolist() == rows[:9].tolist()
