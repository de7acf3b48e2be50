"""Pair datasets: images with captions and a validation part, what every general objective needs.

A dataset is a user's folder (``folder_pairs``) or a world's own; an objective asks it for rows and
never where they come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from guided.training.objective import LICENCE, BatchContext


@dataclass(frozen=True)
class ValidationSet:
    """Images that are not trained on: ``images`` [n, 3, S, S] in [0, 1], a true caption of each,
    and one that is not true of it (``wrong``).
    """

    images: Tensor
    captions: list[str]
    wrong: list[str]


class PairDataset(ABC):
    """Images of ``size`` pixels a side with captions, by row numbers 0 ... ``count`` - 1.

    ``folder`` is where features of them are kept; it belongs to these images at this size, so its
    name holds their identity.  Rows are kept together in shards of ``shard`` rows.  Everything
    random is a function of the batch alone.
    """

    size: int
    count: int
    shard: int
    licence: str = LICENCE

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where features of these images are kept."""

    @abstractmethod
    def rows(self, share: BatchContext) -> np.ndarray:
        """The rows [share.size] int64 of a whole batch, over all processes."""

    def permitted(self, rows: np.ndarray) -> np.ndarray:
        """Rows [n], those that may not be told to a model with their captions replaced by others;
        here all may.
        """
        return rows

    @abstractmethod
    def pixels(self, rows: np.ndarray) -> Tensor:
        """Images uint8 [n, 3, size, size] of rows."""

    @abstractmethod
    def captions(self, rows: np.ndarray, share: BatchContext) -> list[str]:
        """One caption of each row of a whole batch that is this process's: ``rows[share.rows]``."""

    def attributes(self, rows: np.ndarray) -> Tensor | None:
        """Codes [n, K] int64 of known attributes, -1 where unknown; None where none are known."""
        return None

    @abstractmethod
    def validation(self, count: int) -> ValidationSet:
        """At most so many images that are not trained on, with captions.

        A folder too small to hold any out gives images that are trained on; ``summary`` says so.
        """

    @abstractmethod
    def corpus(self) -> Sequence[str]:
        """Captions that may be learnt from, for a vocabulary."""

    @abstractmethod
    def summary(self) -> str:
        """What the images are and how many, for a card."""

    @abstractmethod
    def close(self) -> None:
        """Let go of workers and memory."""
