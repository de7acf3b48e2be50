"""Pictures of a pool as tensors, from the disk or from the device's memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guided.training.objective import Surroundings
from guided.training.world_data import Drawn, Pool


class Pictures:
    """Takes a pool's rows as tensors, from the disk or from the device's memory.

    With ``resident`` each shard is copied to the device when it is first touched and stays there.
    """

    def __init__(self, pool: Pool, device: torch.device, where: str = "disk") -> None:
        self.pool = pool
        self.device = device
        self._resident: dict[int, Tensor] | None = {} if where == "device" else None

    @classmethod
    def of(cls, around: Surroundings, size: int, count: int) -> Pictures:
        """The training pictures of the drawn world, the same pool for every objective."""
        pool = Pool.open(around.pools, seed=0, split="train", size=size, count=count)
        return cls(pool, around.device, "device" if around.resident else "disk")

    def take(self, rows: np.ndarray) -> tuple[Drawn, Tensor]:
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
