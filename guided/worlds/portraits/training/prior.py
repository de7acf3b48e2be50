"""The prior of drawn portraits: fresh captions to embeddings of the portraits they are true of."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from pydantic import Field

from guided.training.objective import ObjectiveSettings
from guided.training.objectives import prior as general
from guided.worlds.portraits.training.pairs import DrawnPairs
from guided.worlds.portraits.training.text_gan_world import DRAWN

#: World seed of the monitor's own portraits, far from those of every published figure.
MONITOR_SEED = 6_300_000


class PriorSettings(general.PriorSettings):
    """The ``[settings]`` of its recipe."""

    pictures: int = Field(131_072, ge=64, description="drawn pictures in the pool")
    size: int = Field(DRAWN, ge=16, description="side of the drawn pictures")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")


class PriorObjective(general.PriorObjective):
    """Captions to embeddings of drawn portraits."""

    name = "prior"
    Settings: ClassVar[type[ObjectiveSettings]] = PriorSettings
    needs_folder = False

    @cached_property
    def dataset(self) -> DrawnPairs:
        """Drawn portraits."""
        s = self.settings
        return DrawnPairs(self.ctx, self.size, s.pictures, s.repeats, MONITOR_SEED)
