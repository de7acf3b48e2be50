"""Random numbers that belong to a sample, not to a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
        """Seeds first, first + 1, ... for ``count`` samples."""
        return cls(tuple(range(first, first + count)))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Sequence[int]) -> Seeds:
        if isinstance(rows, slice):
            return Seeds(self.values[rows])
        return Seeds(tuple(self.values[row] for row in rows))

    def streams(self, name: str) -> Iterator[torch.Generator]:
        """A fresh ``torch.Generator`` on the CPU for each sample and this name."""
        for value in self.values:
            yield torch.Generator().manual_seed(_mixed(value, name))

    def normal(self, shape: Sequence[int], name: str, device: torch.device | None = None) -> Tensor:
        """Standard normal numbers [len(self), *shape], float32, drawn on the CPU then moved."""
        rows = [torch.randn(tuple(shape), generator=stream) for stream in self.streams(name)]
        return (torch.stack(rows) if rows else torch.empty(0, *shape)).to(device)

    def uniform(
        self, shape: Sequence[int], name: str, device: torch.device | None = None
    ) -> Tensor:
        """Numbers in [0, 1), [len(self), *shape], float32, drawn on the CPU then moved."""
        rows = [torch.rand(tuple(shape), generator=stream) for stream in self.streams(name)]
        return (torch.stack(rows) if rows else torch.empty(0, *shape)).to(device)
