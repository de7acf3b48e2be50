"""What frozen models say of a pool's pictures, computed once and kept beside the pool.

A shard is encoded when a row of it is first asked for, by whoever asks first, and read from the
disk from then on.  The folder's name holds the hashes of the models, so other weights start another
store.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from guided.core.files import make_folder
from guided.scorers.clip import ClipScorer
from guided.training.lock import claim
from guided.training.world_data import Pool

log = logging.getLogger(__name__)

#: Pictures that are encoded together.
ROWS = 64


class ShardStore(ABC):
    """Arrays beside a pool's shards, one for each of ``parts``; the last is written last.

    ``resident`` keeps what was read in ``device``'s memory.
    """

    parts: ClassVar[Sequence[str]]

    def __init__(self, pool: Pool, device: torch.device, *, resident: bool = False) -> None:
        self.pool, self.device, self.resident = pool, device, resident
        self._shards: dict[int, tuple[Tensor, ...]] = {}

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the store lies: beside the pool's pictures."""

    @abstractmethod
    def found(self, rows: np.ndarray) -> Sequence[Tensor]:
        """One array for each of ``parts`` of some rows of one shard, worked out afresh."""

    def rows(self, rows: np.ndarray) -> list[Tensor]:
        """The arrays' rows, float32, in the order given; waits for pictures."""
        numbers, places = rows // self.pool.shard, rows % self.pool.shard
        order, found = [], []
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            shard = self.shard(int(number))
            picked = torch.from_numpy(places[here]).to(shard[0].device)
            order.append(torch.from_numpy(here))
            found.append([array[picked] for array in shard])
        back = torch.cat(order).argsort().to(found[0][0].device)
        return [torch.cat(arrays)[back].float() for arrays in zip(*found, strict=True)]

    def shard(self, number: int) -> tuple[Tensor, ...]:
        """The arrays of a whole shard, as they are kept."""
        if number not in self._shards:
            files = self._files(number)
            if not files[-1].exists():
                self._write(number)
            read = (np.load(file, mmap_mode=None if self.resident else "c") for file in files)
            arrays = tuple(torch.from_numpy(each) for each in read)
            if self.resident:
                arrays = tuple(array.to(self.device) for array in arrays)
            self._shards[number] = arrays
        return self._shards[number]

    def _files(self, number: int) -> list[Path]:
        return [self.folder / f"{number:05d}.{part}.npy" for part in self.parts]

    def _write(self, number: int) -> None:
        """Write a shard's files unless another process does."""
        make_folder(self.folder)
        while not self._files(number)[-1].exists():
            with claim(self.folder / f".{number:05d}.lock") as mine:
                if mine and not self._files(number)[-1].exists():
                    log.info("encoding the pictures of shard %d of %s", number, self.pool.folder)
                    for file, content in zip(
                        self._files(number), self._encoded(number), strict=True
                    ):
                        part = file.with_suffix(".part")
                        with part.open("wb") as stream:
                            np.save(stream, content)
                            stream.flush()
                            os.fsync(stream.fileno())
                        part.replace(file)
                    return
            time.sleep(0.2)

    @torch.no_grad()
    def _encoded(self, number: int) -> list[np.ndarray]:
        every = np.arange(number * self.pool.shard, (number + 1) * self.pool.shard)
        found = [
            [each.half().cpu() for each in self.found(every[first : first + ROWS])]
            for first in range(0, len(every), ROWS)
        ]
        return [torch.cat(arrays).numpy() for arrays in zip(*found, strict=True)]


class PictureStore(ShardStore):
    """A store of what models say of pictures alone."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Sequence[Tensor]:
        """One array for each of ``parts`` of some pictures uint8 [n, 3, H, W]."""

    def found(self, rows: np.ndarray) -> Sequence[Tensor]:
        """What is said of the rows' pictures."""
        shard = self.pool.shard
        pixels = self.pool.shard_pixels(int(rows[0]) // shard)[rows % shard]
        some = torch.from_numpy(np.array(pixels)).to(self.device)
        return self.encode(some.permute(0, 3, 1, 2))


class FeatureStore(PictureStore):
    """Unit features [n, D] of a pool's pictures by a CLIP."""

    parts = ("features",)
    _FORMAT = 1

    def __init__(self, pool: Pool, scorer: ClipScorer, *, resident: bool = False) -> None:
        super().__init__(pool, scorer.device.torch, resident=resident)
        self.scorer = scorer

    @property
    def folder(self) -> Path:
        """Beside the pictures, named by the CLIP and its precision."""
        name = (
            f"features{self._FORMAT}-{self.scorer.fingerprint[:8]}-{self.scorer.device.precision}"
        )
        return self.pool.folder / name

    def encode(self, pixels: Tensor) -> Sequence[Tensor]:
        """The features, by the scorer's own tower for many pictures where the sizes agree."""
        if tuple(pixels.shape[2:]) == tuple(self.scorer.preprocess.size):
            return (self.scorer.embed_pixels(pixels),)
        return (self.scorer.embed_images(pixels.float().div(255)),)

    def take(self, rows: np.ndarray) -> Tensor:
        """Features [n, D] of rows, float32."""
        return self.rows(rows)[0]
