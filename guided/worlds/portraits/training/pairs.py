"""The drawn world as a pair dataset: portraits, fresh captions by grammar, known attributes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guided.core.images import to_tensor
from guided.training.objective import BatchContext, TrainingContext
from guided.training.pairs import PairDataset, ValidationSet
from guided.worlds.portraits.attributes import KEYS
from guided.worlds.portraits.drawing.raster import draw
from guided.worlds.portraits.grammar.captions import caption, edited
from guided.worlds.portraits.grammar.claims import codes
from guided.worlds.portraits.splits import sample
from guided.worlds.portraits.training.clip_pairs import UNSEEN_CODES, person_of
from guided.worlds.portraits.training.pictures import Pictures
from guided.worlds.portraits.training.world_data import Pool, RenderedRows

#: Share of a caption's statements that say what is not there.
NEGATION = 0.15


class DrawnPairs(PairDataset):
    """Drawn portraits of the training split; ``first`` is the world seed of the validation part."""

    def __init__(
        self, ctx: TrainingContext, size: int, count: int, repeats: int, first: int
    ) -> None:
        self.ctx, self.size, self.wanted = ctx, size, count
        self.repeats, self.first = repeats, first

    @cached_property
    def pictures(self) -> Pictures:
        """The drawn pictures; the first touch starts drawing."""
        return Pictures.of(self.ctx, self.size, self.wanted)

    @property
    def pool(self) -> Pool:
        """Their pool."""
        return self.pictures.pool

    @property
    def count(self) -> int:  # type: ignore[override]
        """How many portraits are in the pool."""
        return self.pool.count

    @property
    def shard(self) -> int:  # type: ignore[override]
        """How many make a shard of the pool."""
        return self.pool.shard

    @property
    def folder(self) -> Path:
        """The pool's folder, which is named by a fingerprint of the drawing."""
        return self.pool.folder

    def rows(self, share: BatchContext) -> np.ndarray:
        """The rows of a batch, from one window of shards at a time."""
        return self.pool.rows(share.seed, share.position, share.size, repeats=self.repeats)

    def permitted(self, rows: np.ndarray) -> np.ndarray:
        """Rows whose shirts show a word that is kept from training replaced by their neighbours."""
        return without_kept_words(rows, self.pool.labels(rows))[0]

    def pixels(self, rows: np.ndarray) -> Tensor:
        """Portraits uint8 [n, 3, size, size]."""
        return self.pictures.take(rows)[1]

    def captions(self, rows: np.ndarray, share: BatchContext) -> list[str]:
        """A fresh caption of each of this process's rows."""
        labels, texts = self.pool.labels(rows), []
        for row in range(*share.rows.indices(len(rows))):
            rng = np.random.default_rng([share.number("captions"), row])
            texts.append(caption(person_of(labels.codes[row]), rng, negation=NEGATION).text)
        return texts

    def attributes(self, rows: np.ndarray) -> Tensor:
        """Codes [n, 13] int64 of what can be seen, -1 where it cannot."""
        return truth_of(self.pool.labels(rows), slice(None))

    def validation(self, count: int) -> ValidationSet:
        """New portraits with a caption and a near miss each."""
        people = [sample(self.first + i, "val") for i in range(count)]
        images = to_tensor([draw(person, self.size) for person in people])
        stream = np.random.default_rng(self.first)
        true = [caption(person, stream) for person in people]
        miss = [edited(c, p, stream) or c for c, p in zip(true, people, strict=True)]
        return ValidationSet(images, [c.text for c in true], [c.text for c in miss])

    def corpus(self) -> Sequence[str]:
        """A caption of each of the first portraits."""
        stream = np.random.default_rng(0)
        return [caption(sample(i, "train"), stream).text for i in range(400)]

    def summary(self) -> str:
        """What it is, for a card."""
        return "drawn portraits"

    def close(self) -> None:
        """End the drawing workers."""
        if "pictures" in self.__dict__:
            self.pool.close()


def truth_of(labels: RenderedRows, part: slice) -> Tensor:
    """Codes [n, 13] int64 of what can be seen, -1 where it cannot."""
    people = [person_of(code) for code in labels.codes[part]]
    return torch.from_numpy(codes(people).astype(np.int64))


def without_kept_words(rows: np.ndarray, labels: RenderedRows) -> tuple[np.ndarray, RenderedRows]:
    """Rows whose shirts show a word that is kept from training replaced by their neighbours."""
    hidden = np.isin(labels.codes[:, KEYS.index("sign")], UNSEEN_CODES)
    if not hidden.any() or hidden.all():
        return rows, labels
    shown = np.flatnonzero(~hidden)
    order = np.arange(len(rows))
    order[hidden] = shown[np.arange(int(hidden.sum())) % len(shown)]
    empty = labels.pixels
    return rows[order], RenderedRows(
        labels.seeds[order], empty, labels.codes[order], labels.visible[order]
    )
