"""Pools of drawn portraits on disk: drawn once by background processes, shared by all trainings.

A pool is a folder of shards.  Shard k holds the pictures of world seeds k * SHARD ... as one uint8
array file that is memory-mapped, with the attribute codes beside it.  Shards appear whole (written
aside, then renamed), so a training may begin with the first while workers draw the next.  The
folder's name holds a fingerprint of the drawing: a changed world starts another pool.

No torch in here: the workers import this module.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from guided.core.files import replacing
from guided.errors import CannotDo, OutputError
from guided.training.lock import claim
from guided.worlds.portraits import KEYS, VALUES, Portrait, draw, sample
from guided.worlds.portraits.splits import Split

log = logging.getLogger(__name__)

SHARD = 4096
#: Shards that are shuffled together: a batch mixes this many.
WINDOW = 4
#: A code that stands for None (the colour of a hat that is not there).
ABSENT = 255


@dataclass(frozen=True)
class RenderedRows:
    """Some rows of a pool.

    ``seeds`` [n] int64 world seeds; ``pixels`` [n, size, size, 3] uint8 sRGB; ``codes`` [n, 13]
    uint8 positions in ``VALUES[key]`` for each key of ``KEYS`` (ABSENT for None); ``visible``
    [n, 13] bool: what can be told from the picture.
    """

    seeds: np.ndarray
    pixels: np.ndarray
    codes: np.ndarray
    visible: np.ndarray


@lru_cache(maxsize=4)
def fingerprint(size: int) -> str:
    """Eight hex digits that change when the drawing, the vocabulary or the splits change."""
    digest = hashlib.sha256(json.dumps([SHARD, list(KEYS), VALUES]).encode())
    for seed in range(32):
        digest.update(np.asarray(draw(sample(seed, "train"), size)).tobytes())
    return digest.hexdigest()[:8]


def codes_of(portrait: Portrait) -> list[int]:
    """A portrait's attributes as positions in ``VALUES``, ABSENT for None."""
    return [
        ABSENT if value is None else VALUES[key].index(value)
        for key, value in ((key, portrait.attributes[key]) for key in KEYS)
    ]


def shuffled_rows(count: int, seed: int, position: int, size: int, repeats: int = 1) -> np.ndarray:
    """The ``size`` rows of batch ``position``: a function of its arguments alone.

    Rows come from one window of neighbouring shards at a time, each window visited ``repeats``
    times in a row (in new orders) before the next: the first pass goes through the shards in the
    order in which they are drawn, later passes in random order.  What does not fill a batch at a
    window's end waits for the next pass.
    """
    window = min(count, WINDOW * SHARD)
    if size > window:
        raise CannotDo(f"A batch of {size} is larger than the {window} pictures mixed at a time.")
    windows, each = count // window, window // size
    visit, place = divmod(position, each)
    visit, again = divmod(visit, repeats)
    epoch, turn = divmod(visit, windows)
    if epoch:
        turn = int(np.random.default_rng([seed, 1, epoch]).permutation(windows)[turn])
    order = _order(seed, epoch, turn * repeats + again, window)
    return turn * window + order[place * size : (place + 1) * size]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, visit: int, window: int) -> np.ndarray:
    return np.random.default_rng([seed, 2, epoch, visit]).permutation(window)


@dataclass
class Pool:
    """A pool of ``count`` pictures; open it with ``Pool.open``."""

    folder: Path
    split: Split
    size: int
    first: int
    count: int
    shard: int
    _workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _closed: bool = False
    _pixels: dict[int, np.ndarray] = field(default_factory=dict)
    _labels: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        pools: Path,
        *,
        seed: int = 0,
        split: Split = "train",
        size: int = 128,
        count: int = 300_000,
        workers: int | None = None,
    ) -> Pool:
        """The pool of world seeds seed, seed + 1, ..., with workers drawing what is missing.

        ``count`` is rounded up to whole shards, or to whole windows of shards where it needs more
        than one.  ``workers`` defaults to one for each processor;
        they step one further back than this process and end with it, however it ends.

        Raises:
            OutputError: not enough room on the disk, or the folder cannot be written.
        """
        shard = min(SHARD, count)
        to_float = shard if count <= WINDOW * SHARD else WINDOW * SHARD
        count = -(-count // to_float) * to_float
        name = f"{split}-s{seed}-{size}px-{fingerprint(size)}-{shard}"
        pool = cls(Path(pools) / name, split, size, seed, count, shard)
        pool._make_room()
        missing = len(pool.missing())
        if missing:
            wanted = os.cpu_count() or 1 if workers is None else workers
            pool._start(min(wanted, missing))
        return pool

    @property
    def shards(self) -> int:
        """How many shards make the pool."""
        return self.count // self.shard

    def missing(self) -> list[int]:
        """Numbers of the shards that are not drawn yet."""
        return [k for k in range(self.shards) if not self.pixel_file(k).exists()]

    def pixel_file(self, number: int) -> Path:
        """The file of a shard's pictures."""
        return self.folder / f"{number:05d}.pixels.npy"

    def label_file(self, number: int) -> Path:
        """The file of a shard's codes and visibility, [shard, 2, 13] uint8."""
        return self.folder / f"{number:05d}.labels.npy"

    def take(self, rows: Sequence[int] | np.ndarray) -> RenderedRows:
        """The given rows, waiting for shards that are still being drawn.

        Raises:
            CannotDo: a shard is missing and nobody draws it any more.
        """
        rows = np.asarray(rows, dtype=np.int64)
        numbers, places = rows // self.shard, rows % self.shard
        pixels = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            pixels[here] = self._shard(int(number))[0][places[here]]
        return replace(self.labels(rows), pixels=pixels)

    def labels(self, rows: Sequence[int] | np.ndarray) -> RenderedRows:
        """The given rows without their pictures (``pixels`` is empty); waits like ``take``."""
        rows = np.asarray(rows, dtype=np.int64)
        numbers, places = rows // self.shard, rows % self.shard
        labels = np.empty((len(rows), 2, len(KEYS)), np.uint8)
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            labels[here] = self._shard(int(number))[1][places[here]]
        empty = np.empty((0, self.size, self.size, 3), np.uint8)
        return RenderedRows(self.first + rows, empty, labels[:, 0], labels[:, 1].astype(bool))

    def shard_pixels(self, number: int) -> np.ndarray:
        """A shard's pictures [shard, size, size, 3] uint8, mapped from the disk; waits for it."""
        return self._shard(number)[0]

    def rows(
        self, seed: int, position: int, size: int, part: slice = slice(None), repeats: int = 1
    ) -> np.ndarray:
        """The rows of batch ``position`` (of ``size`` rows in all), those of ``part`` of it."""
        return shuffled_rows(self.count, seed, position, size, repeats)[part]

    def wait(self, seconds: float | None = None) -> int:
        """Wait until all shards are drawn, or for some seconds; returns how many still miss."""
        end = None if seconds is None else time.monotonic() + seconds
        while missing := self.missing():
            if end is not None and time.monotonic() >= end:
                return len(missing)
            self._await(missing[0], patience=0.5 if end is None else end - time.monotonic())
        return 0

    def close(self) -> None:
        """End this pool's workers; shards they have finished stay."""
        self._closed = True
        for worker in self._workers:
            worker.terminate()
        self._forget_workers()
        self._pixels.clear()

    def _forget_workers(self) -> None:
        for worker in self._workers:
            worker.wait()
            if worker.stdin is not None:
                worker.stdin.close()
        self._workers.clear()

    def _shard(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._pixels:
            if not 0 <= number < self.shards:
                raise CannotDo(f"Row {number * self.shard} is outside the pool of {self.count}.")
            self._await(number)
            labels = np.load(self.label_file(number))
            self._pixels[number] = np.load(self.pixel_file(number), mmap_mode="r")
            self._labels[number] = labels
        return self._pixels[number], self._labels[number]

    def _await(self, number: int, patience: float = float("inf")) -> None:
        end = time.monotonic() + patience
        while not self.pixel_file(number).exists() and time.monotonic() < end:
            if self._closed:
                raise CannotDo(
                    f"The pool {self.folder} was closed before shard {number} was there."
                )
            if self._workers and all(worker.poll() is not None for worker in self._workers):
                if self.pixel_file(number).exists():
                    return
                if not self._drawn_elsewhere(number):
                    self._go_on(number)
            time.sleep(0.1)

    def _go_on(self, number: int) -> None:
        """Draw on where all workers ended and a shard misses: another training held it, and died.

        Raises:
            CannotDo: a worker failed.
        """
        codes = [worker.returncode for worker in self._workers]
        if any(codes):
            raise CannotDo(
                f"The workers that draw {self.folder} ended with {codes} before shard {number} "
                "was there.",
                hint="Look at the messages above, free some disk or memory, start again.",
            )
        self._forget_workers()
        self._start(1)

    def _drawn_elsewhere(self, number: int) -> bool:
        """Whether a worker of another training holds this shard's lock."""
        with claim(self.folder / f".{number:05d}.lock") as mine:
            return not mine

    def _make_room(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise OutputError(f"The pool {self.folder} cannot be made: {error}.") from error
        needed = len(self.missing()) * self.shard * self.size**2 * 3
        if needed + 2**29 > free:
            raise OutputError(
                f"The pool {self.folder} needs {needed / 1e9:.1f} GB more and the disk has "
                f"{free / 1e9:.1f} GB left.",
                hint="Ask for fewer pictures, or set pools to a folder on another disk.",
            )

    def _start(self, workers: int) -> None:
        words = [self.split, self.size, self.first, self.count, self.shard, os.getpid()]
        command = [
            sys.executable,
            "-m",
            "guided.worlds.portraits.training.draw_worker",
            str(self.folder),
        ]
        root = str(Path(__file__).resolve().parents[4])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        for _ in range(workers):
            self._workers.append(
                subprocess.Popen(
                    [*command, *map(str, words)],
                    stdin=subprocess.PIPE,
                    env=environment,
                    process_group=0 if os.name == "posix" else None,  # no Ctrl-C of the terminal
                )
            )


def draw_shard(
    folder: Path, number: int, split: Split, size: int, seeds: range, parent: int
) -> None:
    """Draw one shard and put its two files in place, pictures last.

    Gives up silently when the process ``parent`` is gone.

    Raises:
        OutputError: the disk does not take them; nothing half-written stays.
    """
    pixels = np.empty((len(seeds), size, size, 3), np.uint8)
    labels = np.empty((len(seeds), 2, len(KEYS)), np.uint8)
    for row, seed in enumerate(seeds):
        if row % 64 == 0 and os.getppid() != parent:
            return
        portrait = sample(seed, split)
        seen = portrait.visible()
        pixels[row] = np.asarray(draw(portrait, size))
        labels[row, 0] = codes_of(portrait)
        labels[row, 1] = [seen[key] for key in KEYS]
    for name, array in (("labels", labels), ("pixels", pixels)):
        with replacing(folder / f"{number:05d}.{name}.npy") as file:
            np.save(file, array)


def draw_missing(
    folder: Path, split: Split, size: int, first: int, count: int, shard: int, parent: int
) -> None:
    """Draw every shard of a pool that is missing and that no other worker holds, in order."""
    for number in range(count // shard):
        target = folder / f"{number:05d}.pixels.npy"
        if target.exists():
            continue
        with claim(folder / f".{number:05d}.lock") as mine:
            if mine and not target.exists():
                seeds = range(first + number * shard, first + (number + 1) * shard)
                draw_shard(folder, number, split, size, seeds, parent)
        if os.getppid() != parent:
            return
