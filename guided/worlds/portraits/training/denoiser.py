"""The diffusion model of drawn portraits: two terms of what is known of them.

``attribute_loss`` weighs attributes that are read off middle tokens (``read_denoiser``);
``sign_loss`` counts errors more where words lie on shirts, too small to be learnt soon otherwise.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from guided.training.objective import BatchContext, ObjectiveSettings, Parts
from guided.training.objectives import denoiser as general
from guided.training.objectives.denoiser import NoisyBatch
from guided.worlds.portraits.training.pairs import DrawnPairs
from guided.worlds.portraits.training.places import place_of
from guided.worlds.portraits.training.read_denoiser import ReadDenoiser
from guided.worlds.portraits.training.truth_losses import facts_apart

#: World seed of the monitor's own portraits, far from those of every published figure.
MONITOR_SEED = 6_200_000


class DenoiserSettings(general.DenoiserSettings):
    """The ``[settings]`` of its recipe."""

    pictures: int = Field(131_072, ge=64, description="drawn pictures in the pool")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")
    attribute_loss: float = Field(
        0.0, ge=0, description="weight of reading attributes off middle tokens"
    )
    sign_loss: float = Field(0.0, ge=0, description="how much more errors count where a word lies")
    read_after: int = Field(3, ge=1, description="blocks after which they are read")

    @model_validator(mode="after")
    def _there(self) -> DenoiserSettings:
        if self.attribute_loss and self.read_after > self.layers:
            raise ValueError(
                f"read_after is {self.read_after} and there are {self.layers} layers; "
                f"give 1 to {self.layers}, or set attribute_loss to 0"
            )
        return self


class DenoiserObjective(general.DenoiserObjective):
    """Noise to latents of drawn portraits."""

    name = "denoiser"
    Settings: ClassVar[type[ObjectiveSettings]] = DenoiserSettings
    needs_folder = False

    @cached_property
    def dataset(self) -> DrawnPairs:
        """Drawn portraits."""
        s = self.settings
        return DrawnPairs(self.ctx, self.size, s.pictures, s.repeats, MONITOR_SEED)

    def build(self) -> nn.Module:
        """The denoiser, with the map that reads its tokens where that has a weight."""
        net: Any = super().build()
        return ReadDenoiser(net, self.settings.read_after) if self.settings.attribute_loss else net

    @staticmethod
    def inside(model: nn.Module) -> nn.Module:
        """The denoiser itself, without a wrapper and without what is read off its tokens."""
        bare = general.DenoiserObjective.inside(model)
        return bare.net if isinstance(bare, ReadDenoiser) else bare

    def loss(
        self, model: nn.Module, batch: NoisyBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """The error of v and, where they are read, of attributes."""
        output = self.predict(model, batch)
        output, logits = output if isinstance(output, tuple) else (output, None)
        total, parts = self.v_loss(output, batch)
        if logits is not None and batch.truth is not None:
            parts["facts"] = facts_apart(logits, batch.truth)
            total = total + self.settings.attribute_loss * parts["facts"]
        return total, {name: part.detach() for name, part in parts.items()}

    @cached_property
    def lettered(self) -> Tensor:
        """Where words lie, [h, w] in [0, 1] on the grid of the latents."""
        return place_of("sign", self.size // self.autoencoder.factor, size=self.size)

    def extra_error(self, square: Tensor) -> Tensor:
        """What each row's errors count for [n] besides, where words lie.

        Rows without a word count alike: were they left out, the mean that a square error leads to
        would show more words than there are.
        """
        if not self.settings.sign_loss:
            return square.new_zeros(len(square))
        placed = (square * self.lettered.to(square.device)).flatten(1).mean(1)
        counted: Tensor = self.settings.sign_loss * placed
        return counted
