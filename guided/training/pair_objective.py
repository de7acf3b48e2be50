"""Base of objectives that learn from a pair dataset: a user's folder, or what a world brings.

A world extends an objective by a subclass of the same name in its own folder ``training``: it
brings its dataset, further settings, terms of the loss and figures of the monitor.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from guided.errors import CannotDo
from guided.training.captioned_images import images_digest
from guided.training.folder_pairs import FolderPairs
from guided.training.objective import TrainingContext, TrainingObjective
from guided.training.pairs import PairDataset

BatchT = TypeVar("BatchT")


class PairObjective(TrainingObjective[BatchT]):
    """An objective over ``dataset``.  ``needs_folder``: it has no data but a user's folder."""

    needs_folder: ClassVar[bool] = True

    def __init__(self, settings: Any, ctx: TrainingContext) -> None:
        """Raises ``CannotDo`` where a folder is needed and none is given."""
        super().__init__(settings, ctx)
        if self.needs_folder and ctx.data is None:
            raise CannotDo(
                f"The objective {self.name!r} learns from captioned images and none are given.",
                hint="Name their folder: --data DIR",
            )

    @property
    @abstractmethod
    def size(self) -> int:
        """The side of the images that it learns from, in pixels."""

    @cached_property
    def dataset(self) -> PairDataset:
        """Where images and captions come from; the first touch opens every image of a folder."""
        assert self.ctx.data is not None
        return FolderPairs(
            self.ctx.data, self.size, self.name, self.ctx.pools, encoding=self.ctx.encoding
        )

    def data_digest(self) -> str:
        """The identity of the folder's captioned images; "" without a folder."""
        data = self.ctx.data
        return "" if data is None else images_digest(data, self.ctx.encoding)

    def origin(self) -> str:
        """What it was trained on, as sentences for a card."""
        told = f"Trained on {self.dataset.summary()}."
        digest = self.data_digest()
        return f"{told} Data {digest[:16]}." if digest else told

    def close(self) -> None:
        """Let go of the dataset's workers and memory."""
        if "dataset" in self.__dict__:
            self.dataset.close()
