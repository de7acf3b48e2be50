"""Seeds: what is one, the arithmetic of seeds, and random numbers that belong to a sample.

A seed is a whole number from 0 to 2^64 - 1.  JSON and TOML hold one beyond 2^53, which many of
their readers round, as a text of digits.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guided.core.text import EXACT
from guided.errors import RecipeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SEEDS = 2**64
"""How many seeds there are: 0, 1, ..., SEEDS - 1."""


def read_seed(value: Any, where: str = "seed") -> int:
    """The seed that a whole number says, beyond 2^53 also its text; ``where`` is for errors.

    Raises:
        RecipeError: anything else, or a number that is not from 0 to 2^64 - 1.

    >>> read_seed("18446744073709551615") == 2**64 - 1
    True
    """
    seed = -1
    if isinstance(value, str):
        seed = int(value) if re.fullmatch(r"[0-9]{16,20}", value, re.ASCII) else -1
        seed = seed if seed > EXACT else -1
    elif not isinstance(value, bool) and hasattr(value, "__index__"):
        seed = operator.index(value)
    if not 0 <= seed < SEEDS:
        huge = isinstance(value, int) and value.bit_length() > 999
        shown = "a larger number" if huge else json.dumps(value, default=repr)
        raise RecipeError(
            f"{where} = {shown if len(shown) <= 60 else shown[:57] + '...'}: "
            f"must be a whole number from 0 to {SEEDS - 1} (2^64 - 1)."
        )
    return seed


def written_seed(seed: int) -> int | str:
    """A seed as JSON and TOML hold it: beyond 2^53 a text of digits; ``read_seed`` reads both."""
    return seed if seed <= EXACT else str(seed)


def seed_at(first: int, index: int) -> int:
    """The seed ``index`` places after ``first``; after the last, 2^64 - 1, comes 0 again."""
    return (first + index) % SEEDS


def _mixed(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") & (2**63 - 1)


@dataclass(frozen=True)
class Seeds:
    """One independent CPU random stream for each sample of a batch.

    A draw depends on the sample's seed and the draw's name alone: never on the batch size, the
    sample's place in the batch, the device or what was drawn before.
    """

    values: tuple[int, ...]

    @classmethod
    def of(cls, first: int, count: int = 1) -> Seeds:
        """Seeds first, first + 1, ... for ``count`` samples (see ``seed_at``)."""
        return cls(tuple(seed_at(first, index) for index in range(count)))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Sequence[int]) -> Seeds:
        if isinstance(rows, slice):
            return Seeds(self.values[rows])
        return Seeds(tuple(self.values[row] for row in rows))

    def streams(self, name: str) -> Iterator[torch.Generator]:
        """A fresh ``torch.Generator`` on the CPU for each sample and this name."""
        import torch

        for value in self.values:
            yield torch.Generator().manual_seed(_mixed(value, name))

    def normal(self, shape: Sequence[int], name: str, device: torch.device | None = None) -> Tensor:
        """Standard normal numbers [len(self), *shape], float32, drawn on the CPU then moved."""
        import torch

        rows = [torch.randn(tuple(shape), generator=stream) for stream in self.streams(name)]
        return (torch.stack(rows) if rows else torch.empty(0, *shape)).to(device)

    def uniform(
        self, shape: Sequence[int], name: str, device: torch.device | None = None
    ) -> Tensor:
        """Numbers in [0, 1), [len(self), *shape], float32, drawn on the CPU then moved."""
        import torch

        rows = [torch.rand(tuple(shape), generator=stream) for stream in self.streams(name)]
        return (torch.stack(rows) if rows else torch.empty(0, *shape)).to(device)
