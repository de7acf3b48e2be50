"""A user's folder of captioned images as a pair dataset, with a held-out part."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guided.core.images import center_square, to_tensor
from guided.training.captioned_images import Entry, checked_entries, contents_of
from guided.training.folder_augment import augmented, may_flip
from guided.training.folder_split import caption_words, held_out
from guided.training.objective import BatchContext
from guided.training.pairs import PairDataset, ValidationSet

log = logging.getLogger(__name__)

#: Bytes of decoded images that are kept in memory.
KEPT_BYTES = 1 << 30
#: Rows whose frozen features are computed together.
SHARD = 4096


class FolderPairs(PairDataset):
    """The captioned images of a folder, every one opened once; rows number the training part.

    ``held`` are the images held out, ``split`` says how they were parted.  Batches are drawn
    without repetition while the folder lasts.
    """

    licence = "unknown"  # that of the images and captions

    def __init__(
        self, data: Path, size: int, objective: str, caches: Path, *, hold_out: bool = True,
        encoding: str = "",
    ) -> None:  # fmt: skip
        """Read a folder for an objective; ``caches`` is where features may be kept.  Without
        ``hold_out`` all is trained on; ``encoding`` is that of captions which are not UTF-8.

        Raises:
            UsageError: no folder, no captions, images that cannot be read, or too few of either.
        """
        entries = checked_entries(data, objective, encoding)
        self.contents = contents_of(entries)
        held: list[int] = []
        self.split = "nothing held out"
        if hold_out:
            held, self.split = held_out(self.contents, [entry.captions for entry in entries])
        apart = frozenset(held)
        self.entries = [entry for row, entry in enumerate(entries) if row not in apart]
        self.held = [entries[row] for row in held]
        self.size, self.count, self.caches = size, len(self.entries), caches
        self.shard = min(SHARD, self.count)
        self._decoded: dict[str, Tensor] = {}

    @cached_property
    def folder(self) -> Path:
        """In the folder of pools, named by the contents of the training part in their order."""
        digest = hashlib.sha256(f"{self.size}".encode())
        for content, entry in zip(contents_of(self.entries), self.entries, strict=True):
            digest.update("\n".join((content, *entry.captions, "")).encode())
        return self.caches / f"folder-{self.size}px-{digest.hexdigest()[:16]}"

    @cached_property
    def texts(self) -> list[list[tuple[str, ...]]]:
        """The different words of each training image's captions."""
        return [[caption_words(text) for text in entry.captions] for entry in self.entries]

    @cached_property
    def flips(self) -> Tensor:
        """Which images may be mirrored, [count] bool."""
        return torch.tensor([may_flip(entry.captions) for entry in self.entries])

    def rows(self, share: BatchContext) -> np.ndarray:
        """The rows of a batch, each image once before any comes again."""
        rows: np.ndarray = self._drawn(share)[0].numpy()
        return rows

    def picks(self, rows: np.ndarray, share: BatchContext) -> list[int]:
        """Which of its captions each of this process's rows is shown with."""
        uniform = self._drawn(share)[1][share.rows].tolist()
        return [
            int(u * len(self.entries[row].captions))
            for row, u in zip(rows[share.rows].tolist(), uniform, strict=True)
        ]

    def captions(self, rows: np.ndarray, share: BatchContext) -> list[str]:
        """One of its captions for each of this process's rows."""
        mine = rows[share.rows].tolist()
        picks = self.picks(rows, share)
        return [self.entries[row].captions[pick] for row, pick in zip(mine, picks, strict=True)]

    def pixels(self, rows: np.ndarray) -> Tensor:
        """The middle squares of images, uint8 [n, 3, size, size]; kept while memory lasts."""
        return self.squares([self.entries[row] for row in rows.tolist()])

    def augmented(self, rows: np.ndarray, share: BatchContext, strength: float) -> Tensor:
        """This process's rows as ``pixels``, cropped, lit and mirrored by chance."""
        return augmented(self.pixels(rows), self.flips[rows], share, strength)

    def squares(self, entries: Sequence[Entry]) -> Tensor:
        """The middle squares of images, also of held-out ones."""
        return torch.stack([self._square(entry) for entry in entries])

    def validation(self, count: int) -> ValidationSet:
        """Held-out images (without any, trained ones) spread over the folder, each with its first
        caption; the wrong one is that of the next image that has another.
        """
        some = self.held or self.entries
        step = max(1, len(some) / max(count, 1))
        entries = [some[int(i * step)] for i in range(min(count, len(some)))]
        texts = [entry.captions[0] for entry in entries]
        wrong = [
            next((t for t in (*texts[i + 1 :], *texts[:i]) if t not in entry.captions), "")
            for i, entry in enumerate(entries)
        ]
        return ValidationSet(self.squares(entries).float() / 255, texts, wrong)

    def corpus(self) -> list[str]:
        """The captions of images that are not held out."""
        return [text for entry in self.entries for text in entry.captions]

    def summary(self) -> str:
        """How much there is, for a card."""
        count = len(self.entries) + len(self.held)
        captions = sum(len(entry.captions) for entry in (*self.entries, *self.held))
        return (
            f"{count:,} images with {captions:,} captions of the user's own; "
            f"{len(self.held):,} images held out ({self.split})"
        )

    def close(self) -> None:
        """Forget the decoded images."""
        self._decoded.clear()

    def _drawn(self, share: BatchContext) -> tuple[Tensor, Tensor]:
        """The rows of a whole batch, and a number in [0, 1) for each."""
        stream = share.generator("pictures")
        passes = -(-share.size // self.count)
        order = torch.cat([torch.randperm(self.count, generator=stream) for _ in range(passes)])
        return order[: share.size], torch.rand(share.size, generator=stream)

    def _square(self, entry: Entry) -> Tensor:
        if entry.name in self._decoded:
            return self._decoded[entry.name]
        square = to_tensor(center_square(entry.open(self.size), self.size))[0]
        pixels = (square * 255).round().to(torch.uint8)
        if (len(self._decoded) + 1) * pixels.nbytes <= KEPT_BYTES:
            self._decoded[entry.name] = pixels
        return pixels
