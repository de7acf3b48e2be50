"""The text-to-image GAN of drawn portraits: a regression first, or some of it beside.

In the drawn world z and caption together say what a picture shows (``text_gan_world``), so training
may begin as a regression, or keep some of it; the wrong text is the caption with one mentioned
attribute changed.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from guided.nets.text_gan import TextGenerator
from guided.training.objective import ObjectiveSettings
from guided.training.objectives import text_gan as general
from guided.training.reconstruction_losses import detail, edges, feature_distance
from guided.training.text_gan_data import TextGanBatch
from guided.training.text_gan_modules import DiscriminatorOutput, GanModules, GanPhase
from guided.worlds.portraits.attributes import KEYS, VALUES
from guided.worlds.portraits.training.latent_mapping import DEPTH, install
from guided.worlds.portraits.training.text_gan_world import WorldScenes
from guided.worlds.portraits.training.truth_losses import FACTS, facts_apart, masked_cross_entropy

_SIGN = KEYS.index("sign")


class TextGanSettings(general.TextGanSettings):
    """The ``[settings]`` of its recipe; counts of samples are over the whole training."""

    pictures: int = Field(300_000, ge=16, description="drawn pictures in the pool")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")
    writing: float = Field(0.0, ge=0, description="weight of picking the word's own mask (0: none)")
    given: bool = Field(False, description="z passes the known mapping of the drawn world first")
    paired: int = Field(0, ge=0, description="samples of regression before the discriminator")
    pixels: float = Field(4.0, ge=0, description="weight of the absolute difference (regression)")
    details: float = Field(2.0, ge=0, description="more for pixels unlike their surround")
    edges: float = Field(2.0, ge=0, description="weight of neighbours' differences (regression)")
    maps: float = Field(0.5, ge=0, description="weight of the CLIP's maps (regression)")
    facts: float = Field(0.5, ge=0, description="weight of reading attributes off the styles")
    kept: float = Field(0.0, ge=0, description="weight of the regression beside the discriminator")


class TextGanObjective(general.TextGanObjective):
    """Matched real portraits against generated and mismatched ones, and the regression."""

    name = "text_gan"
    Settings: ClassVar[type[ObjectiveSettings]] = TextGanSettings
    needs_folder = False

    @property
    def _regresses(self) -> bool:
        return bool(self.settings.paired or self.settings.kept)

    @property
    def regression(self) -> int:
        """Samples before the discriminator plays."""
        return int(self.settings.paired)

    @cached_property
    def scenes(self) -> WorldScenes:
        """Drawn portraits."""
        s = self.settings
        return WorldScenes(self.ctx, self.scorer, s.size, s.pictures, s.repeats, self.mix)

    def modules(self, **_: int) -> GanModules:
        """Fresh ones, the mapping of the world given where the settings say so."""
        s = self.settings
        modules = super().modules(
            known=DEPTH if s.given else 0,
            masks=len(VALUES["sign"]) if self._regresses and s.writing else 0,
            facts=FACTS if self._regresses and s.facts else 0,
        )
        if s.given:
            install(modules.generator.frozen_mapping)
        return modules

    def terms(
        self,
        model: nn.Module,
        seen: DiscriminatorOutput,
        real: Tensor,
        batch: TextGanBatch,
        phase: GanPhase,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The regression, alone or with its share."""
        if not self._regresses:
            return None, {}
        part, found = self._regression(model, seen, real, batch)
        return (self.settings.kept if phase.d_step else 1.0) * part, found

    def _regression(
        self, model: nn.Module, seen: DiscriminatorOutput, real: Tensor, batch: TextGanBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """How far pictures are from those that z and caption say; rows told by a text alone."""
        s = self.settings
        apart = (1 + s.details * detail(real)) * (seen.made - real).abs()
        parts = {"pixels": apart.mean(), "edges": (edges(seen.made) - edges(real)).abs().mean()}
        total = s.pixels * parts["pixels"] + s.edges * parts["edges"]
        if s.maps:
            parts["maps"] = feature_distance(self.scorer, seen.made, real)
            total = total + s.maps * parts["maps"]
        bare: Any = self.inside(model)
        truth = batch.truth
        assert truth is not None
        if s.writing:
            parts["writing"] = self._writing(bare, seen.styles, truth[:, _SIGN])
            total = total + s.writing * parts["writing"]
        if bare.facts is not None:
            parts["facts"] = facts_apart(bare.facts(seen.styles), truth)
            total = total + s.facts * parts["facts"]
        return total, parts

    def _writing(self, modules: Any, styles: Tensor, written: Tensor) -> Tensor:
        """How surely styles [n, style] pick the mask of what is written (-1: not seen), []."""
        return masked_cross_entropy(modules.generator.mask_overlay.picked(styles).float(), written)

    def prune(self, generator: TextGenerator) -> None:
        """Take out the mask of no word."""
        if generator.mask_overlay is not None:
            generator.mask_overlay.prune(empty=(VALUES["sign"].index("none"),))

    def notes_on_samples(self) -> str:
        """How it learnt, in sentences."""
        s = self.settings
        told = []
        if s.paired:
            told.append(
                f"A regression for {s.paired:,} samples at most: in the drawn world z and caption "
                "together say what a picture shows."
            )
        if self._seen >= s.paired:
            beside = f", beside {s.kept:g} of the regression" if s.kept else ""
            told.append(f"Learnt under a discriminator{beside}.")
        if s.given:
            told.append("The first layers, from z to facts, are given.")
        return " ".join(told)
