"""Cache of frozen features: what finished models say of a dataset's rows, computed once, on disk.

A shard is encoded when a row of it is first asked for, by whichever process asks first, and read
from the disk from then on.  The folder's name holds the identity of the data and the hashes of the
models, so other data or weights start another cache.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guided.core.files import make_folder, replacing
from guided.scorers.clip import ClipScorer
from guided.training.lock import claim
from guided.training.pairs import PairDataset

log = logging.getLogger(__name__)

#: Rows that are encoded together.
ROWS = 64


def cache_folder(dataset: PairDataset, title: str, *marks: str) -> Path:
    """Where a cache lies: beside the dataset's own files, named by the models that fill it.

    ``marks`` are the hashes of the models' weights and their precisions.
    """
    digest = hashlib.sha256("\n".join(marks).encode()).hexdigest()
    return dataset.folder / f"{title}-{digest[:16]}"


@dataclass
class FeatureCache:
    """Arrays in half precision, one for each of ``parts``, a file a shard, the last written last.

    ``encode`` takes rows of one shard and gives one tensor [n, ...] for each part.  ``resident``
    keeps what was read in ``device``'s memory.
    """

    folder: Path
    dataset: PairDataset
    parts: Sequence[str]
    encode: Callable[[np.ndarray], Sequence[Tensor]]
    device: torch.device
    resident: bool = False
    _shards: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> list[Tensor]:
        """Each part's rows [n, ...], float32, in the order given; waits for the images."""
        numbers, offsets = rows // self.dataset.shard, rows % self.dataset.shard
        order, parts = [], []
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            shard = self.shard(int(number))
            picked = torch.from_numpy(offsets[here]).to(shard[0].device)
            order.append(torch.from_numpy(here))
            parts.append([array[picked] for array in shard])
        back = torch.cat(order).argsort().to(parts[0][0].device)
        return [torch.cat(arrays)[back].float() for arrays in zip(*parts, strict=True)]

    def shard(self, number: int) -> tuple[Tensor, ...]:
        """The arrays of a whole shard, in half precision."""
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
                    log.info("encoding the images of shard %d into %s", number, self.folder)
                    for file, content in zip(
                        self._files(number), self._encoded(number), strict=True
                    ):
                        with replacing(file) as stream:
                            np.save(stream, content)
                    return
            time.sleep(0.2)

    @torch.no_grad()
    def _encoded(self, number: int) -> list[np.ndarray]:
        first = number * self.dataset.shard
        every = np.arange(first, min(first + self.dataset.shard, self.dataset.count))
        groups = [
            [each.half().cpu() for each in self.encode(every[start : start + ROWS])]
            for start in range(0, len(every), ROWS)
        ]
        return [torch.cat(arrays).numpy() for arrays in zip(*groups, strict=True)]


def clip_features(
    dataset: PairDataset, scorer: ClipScorer, *, resident: bool = False
) -> FeatureCache:
    """The cache of a CLIP's unit image embeddings [n, D], by the scorer's own tower for many images
    where the sizes agree.
    """
    fits = tuple(scorer.preprocess.size) == (dataset.size, dataset.size)
    marks = [scorer.fingerprint, scorer.device.precision, *([scorer.bulk] if fits else [])]

    def encode(rows: np.ndarray) -> Sequence[Tensor]:
        pixels = dataset.pixels(rows).to(scorer.device.torch)
        return (scorer.embed_pixels(pixels) if fits else scorer.embed_images(pixels.float() / 255),)

    folder = cache_folder(dataset, "features", *marks)
    return FeatureCache(folder, dataset, ("features",), encode, scorer.device.torch, resident)
