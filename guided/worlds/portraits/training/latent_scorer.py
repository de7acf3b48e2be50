"""The latent scorer of drawn portraits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from guided.training.objective import ObjectiveSettings
from guided.training.objectives import latent_scorer as general
from guided.worlds.portraits.training.denoiser import DenoiserObjective, DenoiserSettings


class LatentScorerSettings(general.LatentScorerSettings):
    """The ``[settings]`` of its recipe."""

    pictures: int = Field(131_072, ge=64, description="drawn pictures in the pool")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")


class LatentScorerObjective(general.LatentScorerObjective):
    """The guiding CLIP's features of drawn portraits, from predictions of their latents."""

    name = "latent_scorer"
    Settings: ClassVar[type[ObjectiveSettings]] = LatentScorerSettings
    needs_folder = False

    def denoising(self, table: Mapping[str, Any]) -> DenoiserObjective:
        """The denoiser's training on drawn portraits."""
        s = self.settings
        pool = {"pictures": s.pictures, "repeats": s.repeats}
        return DenoiserObjective(DenoiserSettings(**table, **pool), self.ctx)
