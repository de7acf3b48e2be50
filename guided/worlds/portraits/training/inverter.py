"""The inversion encoder of drawn portraits: some have known codes, those of their facts.

Where a generator was trained on the world as a function of z, the facts of a portrait are a code.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from guided.errors import CannotDo
from guided.nets.pixel_unshuffle import SIZE
from guided.training.objective import BatchContext, ObjectiveSettings
from guided.training.objectives import inverter as general
from guided.worlds.portraits.splits import Split, sample
from guided.worlds.portraits.training.degradation import augment, to_float
from guided.worlds.portraits.training.latent_mapping import SCALE, value_columns
from guided.worlds.portraits.training.latent_world import LATENT, conditional, geometry_of
from guided.worlds.portraits.training.pairs import DrawnPairs
from guided.worlds.portraits.training.person_pairs import drawn
from guided.worlds.portraits.training.truth_losses import masked_cross_entropy

#: World seeds of the monitor's own pictures, far from those of every published figure.
MONITOR_SEED = 6_100_000
JUDGED = 256
JUDGED_SPLITS: dict[Split, str] = {"val": "new", "test": "pairs"}
#: A stated fact lies this many logits above what is not.
_SHARPNESS = 8.0


class InverterSettings(general.InverterSettings):
    """The ``[settings]`` of its recipe."""

    identity: str = Field("identity", description="the identity embedder; empty: none")
    pictures: int = Field(300_000, ge=64, description="drawn pictures in the pool")
    repeats: int = Field(1, ge=1, description="visits to a window of shards before the next")
    paired: float = Field(
        0.0, ge=0, le=1, description="share of drawn portraits with the codes of their facts"
    )
    clean: float = Field(0.5, ge=0, le=1, description="share of pictures left as they are")
    facts: float = Field(
        0.0, ge=0, description="weight of reading the world's facts off codes; needs paired"
    )

    @model_validator(mode="after")
    def _whole(self) -> InverterSettings:
        if self.paired + self.drawn > 1:
            raise ValueError(f"paired and drawn are {self.paired + self.drawn:g} of a batch")
        if self.facts and not self.paired:
            raise ValueError("facts are known of paired portraits alone, and paired is 0")
        return self


class InverterObjective(general.InverterObjective):
    """Known codes, and drawn portraits that come back."""

    name = "inverter"
    Settings: ClassVar[type[ObjectiveSettings]] = InverterSettings
    PARTS: ClassVar[tuple[str, ...]] = ("latent", "facts", "pixels", "features", "same")
    needs_folder = False

    @cached_property
    def dataset(self) -> DrawnPairs:
        """Drawn portraits."""
        s = self.settings
        return DrawnPairs(self.ctx, SIZE, s.pictures, s.repeats, MONITOR_SEED)

    def known_count(self, share: BatchContext) -> int:
        """How many portraits of a whole batch come with the codes of their facts."""
        return round(float(self.settings.paired) * share.size)

    @torch.no_grad()
    def known_codes(self, rows: np.ndarray, share: BatchContext) -> Tensor:
        """The codes [n, rows, style] of the facts of portraits."""
        labels = self.dataset.pool.labels(rows)
        latent = self.generator.net.shape.latent
        if latent != LATENT:
            raise CannotDo(
                f"The generator {self.settings.generator!r} has a z of {latent} numbers: it does "
                f"not draw the world from its z, which has {LATENT}.",
                hint="Set paired = 0.",
            )
        people = [sample(int(seed), "train") for seed in labels.seeds]
        geometry = np.stack([geometry_of(person) for person in people])
        stream = np.random.default_rng([share.number(f"facts {share.rank}")])
        z = conditional(labels.codes, geometry, stream)
        return self.generator.net.spread(self._styles(torch.from_numpy(z).float())).contiguous()

    def augmented(self, images: Tensor, whole: BatchContext) -> Tensor:
        """Portraits, softened but for a share."""
        return augment(images, whole, self.settings.clean)

    def terms(self, styles: Tensor, true: Tensor) -> dict[str, Tensor]:
        """How well facts are read off the codes."""
        return {"facts": fact_loss(styles, true)} if self.settings.facts else {}

    def judged(self) -> dict[str, Tensor]:
        """New portraits, and those of pairs of values that training never shows."""
        return {
            label: to_float(drawn([sample(i, split) for i in range(JUDGED)], SIZE))
            for split, label in JUDGED_SPLITS.items()
        }


def fact_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean cross entropy [] of the facts that w [n, style] states, over attributes.

    In this W a fact is the largest of its attribute's components (``latent_mapping``), and a few
    pixels may decide it, which counts little in a squared distance.  What ``wanted`` does not state
    (the colour of no hat) is left out.
    """
    losses = []
    for place in value_columns().values():
        most, value = wanted[:, place].max(1)
        target = torch.where(most > 0.5 * SCALE, value, -1)
        losses.append(masked_cross_entropy(_SHARPNESS / SCALE * found[:, place], target))
    return torch.stack(losses).mean()
