"""Pictures of a pool as tensors, and what objectives share that learn from them."""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from guided.training.objective import (
    BatchContext,
    ObjectiveSettings,
    TrainingContext,
    TrainingObjective,
)
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.training.world_data import Pool, RenderedRows

BatchT = TypeVar("BatchT")


class Pictures:
    """Takes a pool's rows as tensors, from the disk or from the device's memory.

    With ``resident`` each shard is copied to the device when it is first touched and stays there.
    """

    def __init__(self, pool: Pool, device: torch.device, where: str = "disk") -> None:
        self.pool = pool
        self.device = device
        self._resident: dict[int, Tensor] | None = {} if where == "device" else None

    @classmethod
    def of(cls, ctx: TrainingContext, size: int, count: int) -> Pictures:
        """The training pictures of the drawn world, the same pool for every objective."""
        pool = Pool.open(ctx.pools, seed=0, split="train", size=size, count=count)
        return cls(pool, ctx.device, "device" if ctx.resident else "disk")

    def take(self, rows: np.ndarray) -> tuple[RenderedRows, Tensor]:
        """The rows' labels and pictures [n, 3, size, size] uint8 (channels last in memory)."""
        if self._resident is None:
            drawn = self.pool.take(rows)
            return drawn, torch.from_numpy(drawn.pixels).permute(0, 3, 1, 2)
        drawn = self.pool.labels(rows)
        numbers, places = rows // self.pool.shard, rows % self.pool.shard
        size = self.pool.size
        out = torch.empty(len(rows), size, size, 3, dtype=torch.uint8, device=self.device)
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            shard = self._on_device(int(number))
            picked = torch.from_numpy(places[here]).to(self.device)
            out[torch.from_numpy(here).to(self.device)] = shard[picked]
        return drawn, out.permute(0, 3, 1, 2)

    def _on_device(self, number: int) -> Tensor:
        assert self._resident is not None
        if number not in self._resident:
            self._resident[number] = torch.from_numpy(np.array(self.pool.shard_pixels(number))).to(
                self.device
            )
        return self._resident[number]


class PictureSettings(ObjectiveSettings):
    """The keys of objectives that learn from the drawn pictures."""

    pictures: int = Field(300_000, ge=64, description="drawn pictures in the pool")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")


class PictureObjective(TrainingObjective[BatchT]):
    """An objective that learns from the drawn pictures; its settings are ``PictureSettings``."""

    own_data = "the drawn world"

    @property
    def size(self) -> int:
        """The side of the pictures."""
        return 128

    @cached_property
    def pictures(self) -> Pictures:
        """The pool of training pictures; the first touch starts drawing."""
        return Pictures.of(self.ctx, self.size, self.settings.pictures)

    def rows(self, share: BatchContext, part: slice) -> np.ndarray:
        """A part of the batch's rows of the pool."""
        pool = self.pictures.pool
        return pool.rows(share.seed, share.position, share.size, part, self.settings.repeats)

    def close(self) -> None:
        """End the drawing workers."""
        if "pictures" in self.__dict__:
            self.pictures.pool.close()


def drawn_apart(
    ctx: TrainingContext, split: Split, first: int, size: int, count: int
) -> tuple[RenderedRows, Tensor]:
    """Labels and pictures [n, 3, size, size] uint8 of world seeds from ``first`` on, for a
    measurement.
    """
    pool = Pool.open(ctx.pools, seed=first, split=split, size=size, count=count, workers=1)
    try:
        pool.wait()
        return Pictures(pool, ctx.device).take(np.arange(count))
    finally:
        pool.close()
