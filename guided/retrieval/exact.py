"""The k nearest vectors, exactly: a quick product finds the candidates, float32 decides.

bf16 halves the memory that is read and, where the processor knows it, doubles the speed.  Its
error is bounded: rounding both vectors and the result changes a product of unit vectors by at
most 3 * 2^-9.  Every row within twice that bound of the k-th best is scored again in float32, so
the answer is that of a float32 search, not an approximation of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.core.shapes import expect
from guided.errors import ShapeError, UsageError

_BLOCK = 64
_ERROR = {torch.bfloat16: 4 * 2.0**-9, torch.float32: 1e-5}
_ELEMENTS = 1 << 25


@dataclass(frozen=True)
class Matrix:
    """Vectors ready to be searched.

    ``stored`` [N, D] float16 decides; ``quick`` [N padded to 64, D] (bf16, or float32 where bf16
    is no quicker) finds.  ``reach`` is the largest length of a row.
    """

    stored: Tensor
    quick: Tensor
    reach: float

    @classmethod
    def of(cls, vectors: Tensor, device: torch.device | None = None) -> Matrix:
        """The matrix of vectors [N, D] on a device.

        Raises:
            ShapeError: another shape.
        """
        expect(vectors, "n d", "vectors")
        stored = vectors.to(device, torch.float16)
        rows, width = stored.shape
        dtype = quick_dtype(stored.device)
        padded = -(-rows // _BLOCK) * _BLOCK
        quick = torch.zeros(padded, width, dtype=dtype, device=stored.device)
        quick[:rows] = stored
        lengths = (
            [part.float().norm(dim=1).max() for part in torch.split(stored, 65536)] if rows else []
        )
        return cls(stored, quick, max((float(length) for length in lengths), default=1.0))

    def __len__(self) -> int:
        return len(self.stored)


_quick: dict[str, torch.dtype] = {}


def quick_dtype(device: torch.device) -> torch.dtype:
    """bf16 where it multiplies at least as quickly as float32 (measured once), else float32."""
    if device.type != "cpu":
        return torch.bfloat16
    if "cpu" not in _quick:
        spent = {}
        for dtype in (torch.float32, torch.bfloat16):
            table, queries = torch.ones(4096, 512, dtype=dtype), torch.ones(512, 16, dtype=dtype)
            table @ queries
            start = time.perf_counter()
            for _ in range(3):
                table @ queries
            spent[dtype] = time.perf_counter() - start
        _quick["cpu"] = min(spent, key=lambda dtype: spent[dtype])
    return _quick["cpu"]


@torch.no_grad()
def nearest_rows(
    matrix: Matrix, queries: Tensor, count: int, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The best scores [Q, k] (float32, falling) and their rows [Q, k], k = min(count, rows).

    ``queries`` [Q, D]; ``rows`` [n] restricts the search to some rows (a filter).  Scores are the
    float32 products with the stored rows; equal scores come in the order of their rows.

    Raises:
        UsageError: a count below 1.
        ShapeError: queries of another width.
    """
    if count < 1:
        raise UsageError(f"The number of results must be at least 1, not {count}.")
    expect(queries, f"q {matrix.stored.shape[1]}", "queries")
    if not torch.isfinite(queries).all():
        raise ShapeError("queries must be finite; some values are NaN or infinite.")
    queries = queries.to(matrix.stored.device, torch.float32)
    size = len(matrix) if rows is None else len(rows)
    count = min(count, size)
    if count == 0 or not len(queries):
        nothing = torch.zeros(len(queries), count, dtype=torch.long, device=queries.device)
        return nothing.float(), nothing
    if rows is not None:
        rows = rows.to(matrix.stored.device).sort().values
    if size <= max(4096, 4 * _BLOCK * count) or (rows is not None and size < len(matrix) // 8):
        return _all_rows(matrix, queries, count, rows)
    group = max(1, _ELEMENTS // len(matrix.quick))
    found = [
        _bounded(matrix, queries[start : start + group], count, rows)
        for start in range(0, len(queries), group)
    ]
    return torch.cat([scores for scores, _ in found]), torch.cat([index for _, index in found])


def _all_rows(
    matrix: Matrix, queries: Tensor, count: int, rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Float32 products with every row asked for."""
    table = matrix.stored if rows is None else matrix.stored[rows]
    parts = [
        queries @ table[start : start + 16384].float().T for start in range(0, len(table), 16384)
    ]
    scores = torch.cat(parts, dim=1)
    best, index = scores.sort(dim=1, descending=True, stable=True)
    best, index = best[:, :count].contiguous(), index[:, :count]
    return best, index if rows is None else rows[index]


def _bounded(
    matrix: Matrix, queries: Tensor, count: int, rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Candidates by the quick product and its error bound, then their float32 products."""
    scores = matrix.quick @ queries.to(matrix.quick.dtype).T
    scores[len(matrix) :] = -torch.inf
    if rows is not None:
        hidden = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        hidden[rows] = False
        scores[hidden] = -torch.inf
    blocks = scores.view(-1, _BLOCK, len(queries))
    peaks = blocks.amax(dim=1)
    floor = peaks.T.float().topk(count, dim=1).values[:, -1]
    slack = 2 * _ERROR[matrix.quick.dtype] * matrix.reach * queries.norm(dim=1)
    threshold = floor - slack
    block, query = torch.nonzero(peaks.float() >= threshold, as_tuple=True)
    inside = blocks[block, :, query].float()
    threshold = _tightened(inside, query, threshold, slack, count)
    pair, offset = torch.nonzero(inside >= threshold[query, None], as_tuple=True)
    row, owner = block[pair] * _BLOCK + offset, query[pair]
    return _decide(matrix, queries, count, row, owner)


def _tightened(
    inside: Tensor, query: Tensor, threshold: Tensor, slack: Tensor, count: int
) -> Tensor:
    """The threshold from the k-th best score itself rather than from the k-th best block."""
    result = threshold.clone()
    for owner in range(len(threshold)):
        scores = inside[query == owner].flatten()
        if len(scores) >= count:
            result[owner] = scores.topk(count).values[-1] - slack[owner]
    return result


def _decide(
    matrix: Matrix, queries: Tensor, count: int, row: Tensor, owner: Tensor
) -> tuple[Tensor, Tensor]:
    """The best ``count`` of the candidate pairs (row, owner) of each query by float32 products."""
    best = queries.new_empty(len(queries), count)
    index = torch.empty(len(queries), count, dtype=torch.long, device=queries.device)
    for number in range(len(queries)):
        mine = row[owner == number].sort().values
        exact = matrix.stored[mine].float() @ queries[number]
        values, order = exact.sort(descending=True, stable=True)
        best[number], index[number] = values[:count], mine[order[:count]]
    return best, index
