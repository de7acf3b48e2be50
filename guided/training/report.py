"""The figures of a training between two reports."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor


class Report:
    """Means of the figures since the last report, and the speed."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._since = time.monotonic()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, values: dict[str, float]) -> None:
        """Note one step's figures."""
        self._rows.append(values)

    def take(self, batch: int) -> dict[str, float]:
        """The means so far and samples per second at ``batch`` a step; begins anew."""
        rows, self._rows = self._rows, []
        spent, self._since = time.monotonic() - self._since, time.monotonic()
        names = dict.fromkeys(name for row in rows for name in row)
        means = {n: sum(row.get(n, 0.0) for row in rows) / len(rows) for n in names}
        return {**means, "per_second": batch * len(rows) / max(spent, 1e-9)}


def numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalar tensors as numbers, fetched from their device at once."""
    stacked = torch.stack([value.detach().float() for value in values.values()]).tolist()
    return dict(zip(values, stacked, strict=True))


def finite(value: float) -> bool:
    """Whether a number is neither infinite nor NaN."""
    return value - value == 0


def crosses(samples: int, batch: int, every: int) -> bool:
    """Whether the last batch took the count past a multiple of ``every``.

    >>> [crosses(n, 4, 10) for n in (4, 8, 12, 16, 20)]
    [False, False, True, False, True]
    """
    return samples > 0 and samples // every > (samples - batch) // every
