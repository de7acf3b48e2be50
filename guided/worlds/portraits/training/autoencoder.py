"""The autoencoder of drawn portraits: 128 px to latents of the shipped diffusion model and back."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from guided.training.objective import ObjectiveSettings
from guided.training.objectives import autoencoder as general
from guided.worlds.portraits.training.pairs import DrawnPairs
from guided.worlds.portraits.training.pictures import PictureSettings

#: World seed of the monitor's own pictures, far from those of every published figure.
MONITOR_SEED = 6_000_000


class AutoencoderSettings(general.AutoencoderSettings, PictureSettings):
    """The ``[settings]`` of its recipe."""


class AutoencoderObjective(general.AutoencoderObjective):
    """Drawn portraits that come back from their latents."""

    name = "autoencoder"
    Settings: ClassVar[type[ObjectiveSettings]] = AutoencoderSettings
    needs_folder = False

    @cached_property
    def dataset(self) -> DrawnPairs:
        """Drawn portraits."""
        s = self.settings
        return DrawnPairs(self.ctx, self.size, s.pictures, s.repeats, MONITOR_SEED)

    @property
    def monitor_count(self) -> int:
        """No more validation pictures than training ones."""
        return min(general.MONITOR_COUNT, int(self.settings.pictures))
