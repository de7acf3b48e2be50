"""Trains a text-to-image GAN on captioned images.

The discriminator calls one thing real, an image with its own text, and two things not: a generated
image, and a real image with a wrong text, another image's.  Rows are told by the text, by the
image's own CLIP feature (so that the GAN can vary an image), or nothing.
Sources: Reed et al. 2016 (matching-aware discriminator); Zhou et al. 2022 (LAFITE, features in the
place of texts); the losses are named in ``guided.training.text_gan_modules``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.files import make_folder, write_bytes
from guided.models.loading import load_scorer, placed
from guided.nets.text_gan import TextGanShape, TextGenerator
from guided.scorers.clip import ClipScorer
from guided.training.folder_pairs import FolderPairs
from guided.training.objective import (
    BatchContext,
    Metric,
    ObjectiveSettings,
    Parts,
    Product,
    TrainingContext,
)
from guided.training.pair_objective import PairObjective
from guided.training.text_gan_data import FolderScenes, Mix, Scenes, TextGanBatch, TextGanValidation
from guided.training.text_gan_modules import (
    DiscriminatorOutput,
    GanModules,
    GanPhase,
    GradientNorms,
    critic_loss,
)
from guided.training.text_gan_monitor import bounds_of, evaluate, sample_sheet

#: Rows on which the adaptive augmentation's chance takes to go from 0 to 1.
_ADAPTED = 50_000


class TextGanSettings(ObjectiveSettings):
    """The ``[settings]`` of a text GAN's recipe; counts of samples are over the whole training."""

    absent = frozenset({"paired", "kept", "writing", "given", "facts", "maps"})

    size: int = Field(128, ge=16, description="side of the pictures")
    scorer: str = Field("clip", description="the guiding CLIP")
    frozen_precision: Precision = Field("fp32", description="its precision")
    channels: tuple[int, ...] = Field((136, 136, 104, 64, 32), description="from 4 px up")
    style: int = Field(144, ge=1)
    hidden: int = Field(224, ge=1)
    latent: int = Field(128, ge=1, description="size of z")
    finish: int = Field(8, ge=1, description="channels at the full side")
    critic: tuple[int, ...] = Field((32, 64, 96, 144, 160), description="from half the side down")
    features: int = Field(192, ge=1)
    group: int = Field(8, ge=2, description="rows that the minibatch statistic compares")
    image_share: float = Field(0.25, ge=0, le=1, description="rows told by their picture")
    free_share: float = Field(0.10, ge=0, le=1, description="rows told nothing")
    noise: float = Field(0.1, ge=0, lt=1, description="noise mixed into texts")
    ramp: int = Field(0, ge=0, description="samples until the discriminator fully counts")
    r1: float = Field(1.0, ge=0, description="weight of the gradient penalty")
    r1_every: int = Field(16, ge=1, description="steps between two penalties")
    clip_weight: float = Field(0.5, ge=0, description="weight of 1 - cosine with the text")
    clip_from: int = Field(0, ge=0, description="samples before the CLIP term")
    clip_ramp: int = Field(50_000, ge=0, description="samples until it fully counts")
    clip_rows: int = Field(16, ge=1, description="rows of a step that CLIP looks at")
    adapt: Literal["auto", "on", "off"] = Field("auto", description="adaptive augmentation")
    target: float = Field(0.6, gt=0, lt=1, description="the sign rate it keeps")
    keep_from: int = Field(0, ge=0, description="samples before a best model is kept")
    looks: int = Field(192, ge=16, description="pictures of a look at the monitor")
    sheets: str = Field("", description="folder for a sheet of samples at each look")


class TextGanObjective(PairObjective[TextGanBatch]):
    """Matched real images against generated and mismatched ones."""

    name = "text_gan"
    Settings: ClassVar[type[ObjectiveSettings]] = TextGanSettings

    def __init__(self, settings: Any, ctx: TrainingContext) -> None:
        super().__init__(settings, ctx)
        self._built: GanModules | None = None
        self._seen = 0

    @property
    def size(self) -> int:
        """The side of the images."""
        return int(self.settings.size)

    @property
    def mix(self) -> Mix:
        """How rows are told."""
        s = self.settings
        return Mix(s.image_share, s.free_share, s.noise)

    @cached_property
    def scorer(self) -> ClipScorer:
        """The guiding CLIP."""
        return load_scorer(
            self.settings.scorer, placed(self.ctx.device, self.settings.frozen_precision)
        )

    @cached_property
    def scenes(self) -> Scenes:
        """Where images and texts come from."""
        assert self.ctx.data is not None
        pairs = FolderPairs(
            self.ctx.data, self.size, self.name, self.ctx.pools, hold_out=False,
            encoding=self.ctx.encoding,
        )  # fmt: skip
        return FolderScenes(pairs, self.scorer, self.settings.latent, self.mix)

    def build(self) -> nn.Module:
        """Generator and discriminator, fresh."""
        self._built = self.modules()
        self._norms = GradientNorms(generator=self._built.generator, critic=self._built.critic)
        return self._built

    def modules(self, *, known: int = 0, masks: int = 0, facts: int = 0) -> GanModules:
        """Fresh ones; ``known`` first layers of the generator are given, it has so many
        ``masks``, and so many ``facts`` are read off its styles.
        """
        s = self.settings
        shape = TextGanShape(
            s.size, self.scorer.width, self.scenes.latent, s.channels, s.style, s.hidden, s.finish,
            known, masks,
        )  # fmt: skip
        return GanModules(shape, s.critic, s.features, s.group, facts)

    def batch(self, share: BatchContext) -> TextGanBatch:
        """Images, z, what is said of them, and what is not true."""
        return self.scenes.batch(share)

    def phase(self, share: BatchContext) -> GanPhase:
        """What happens at a position: a function of the samples seen alone."""
        s = self.settings
        seen = share.position * share.size - self.regression
        if seen < 0:
            return GanPhase(d_step=False)
        g_weight = min(1.0, (seen + share.size) / s.ramp) if s.ramp else 1.0
        lazy = s.r1 * s.r1_every if share.position % s.r1_every == 0 else 0.0
        return GanPhase(True, g_weight, lazy)

    @property
    def regression(self) -> int:
        """Samples before the discriminator plays; here none."""
        return 0

    def terms(
        self,
        model: nn.Module,
        seen: DiscriminatorOutput,
        real: Tensor,
        batch: TextGanBatch,
        phase: GanPhase,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """A further term of the loss [], and named parts; here none."""
        return None, {}

    def loss(
        self, model: nn.Module, batch: TextGanBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """Both players' losses, the CLIP term, and the regression where there is one."""
        phase, parts = self.phase(share), self._norms.fresh(batch.z.device)
        self._seen = share.position * share.size
        real = batch.pictures.float().div(127.5).sub(1)
        real = real.contiguous(memory_format=torch.channels_last)
        seen: DiscriminatorOutput = model(
            phase, real, batch.z, batch.text, batch.wrong, batch.uniform
        )
        total = seen.made.sum() * 0
        if seen.real is not None and seen.fake is not None:
            parts["critic"] = critic_loss(seen, batch.mismatched)
            total = total + parts["critic"]
            if seen.penalty is not None:
                total = total + seen.penalty
            parts |= self._signs(seen, batch)
            self._adapt(seen.real.detach(), share)
        part, found = self.terms(model, seen, real, batch, phase)
        if part is not None:
            total = total + part
            parts |= found
        weight = self._clip_weight(self._seen)
        if weight and phase.d_step:
            parts["clip"] = self._clip(seen.made, batch.text)
            total = total + weight * parts["clip"]
        if share.world > 1 and not phase.d_step:  # every parameter takes part, if by nothing
            bare: Any = self.inside(model)
            total = total + 0 * sum(p.sum() for p in bare.critic.parameters())
        return total, parts

    @torch.no_grad()
    def _signs(self, seen: DiscriminatorOutput, batch: TextGanBatch) -> dict[str, Tensor]:
        """How often the discriminator is right about each kind, and the generator's own loss."""
        assert seen.real is not None
        assert seen.fake is not None
        assert seen.wrong is not None
        weight = batch.mismatched.float()
        wrong = (weight * (seen.wrong < 0)).sum() / weight.sum().clamp_min(1)
        return {
            "generator": F.softplus(-seen.fake).mean(),
            "sign_real": (seen.real > 0).float().mean(),
            "sign_fake": (seen.fake < 0).float().mean(),
            "sign_wrong": wrong,
        }

    @torch.no_grad()
    def _adapt(self, logits: Tensor, share: BatchContext) -> None:
        """Augment more rows when the discriminator knows real pictures too well, else fewer.

        Source: Karras et al. 2020 (adaptive discriminator augmentation), the sign heuristic.
        """
        if self._adapts and self._built is not None:
            known = logits.sign().mean() - self.settings.target
            step = known.sign() * share.size / _ADAPTED
            self._built.chance.copy_((self._built.chance + step).clamp(0, 0.8))

    @cached_property
    def _adapts(self) -> bool:
        if self.settings.adapt == "auto":
            return self.scenes.small
        return bool(self.settings.adapt == "on")

    def _clip_weight(self, seen: int) -> float:
        s = self.settings
        if seen < s.clip_from or not s.clip_weight:
            return 0.0
        part = min(1.0, (seen - s.clip_from) / s.clip_ramp) if s.clip_ramp else 1.0
        return float(s.clip_weight * part)

    def _clip(self, made: Tensor, text: Tensor) -> Tensor:
        """1 - cosine of some pictures with what they were told, a mean over rows [].

        Rows that were told nothing have cosine 0 and no gradient.
        """
        rows = slice(0, self.settings.clip_rows)
        with torch.autocast(made.device.type, enabled=False):
            seen = self.scorer.embed_images(made[rows] * 0.5 + 0.5)
        return 1 - (seen * text[rows]).sum(1).mean()

    @cached_property
    def _val_set(self) -> TextGanValidation:
        return self.scenes.validation_set(self.settings.looks)

    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The guiding CLIP's figures; the best weights by its score are kept."""
        modules: Any = self.inside(model)
        found = evaluate(modules.generator, self.scorer, self._val_set)
        if self._built is not None and self._seen >= self.settings.keep_from:
            self._built.best.update(found["score"], modules.generator)
        if self.settings.sheets:
            sheet = sample_sheet(modules.generator, self._val_set)
            folder = make_folder(Path(self.settings.sheets))
            write_bytes(folder / f"{self._seen:09d}.png", sheet)
        chance = float(self._built.chance) if self._built is not None else 0.0
        return {**{f"monitor_{key}": value for key, value in found.items()}, "adapt": chance}

    def product(self, model: nn.Module) -> Product:
        """The generator alone, of the best look, with its configuration."""
        modules: Any = self.inside(model)
        best = self._built is not None and self._built.best.restore(modules.generator)
        self.prune(modules.generator)
        return Product(
            "text_gan",
            "text_gan",
            self.card_figures(model),
            notes=self._notes(best=best),
            settings={
                **modules.generator.shape.plain(),
                "scorer": self.settings.scorer,
                "words": self.scenes.words(),
            },
            tensors={k: v.contiguous() for k, v in modules.generator.state_dict().items()},
            files={"samples.png": sample_sheet(modules.generator, self._val_set, rows=4)},
        )

    def card_figures(self, model: nn.Module) -> dict[str, Metric]:
        """What the guiding CLIP says of the generator as it is."""
        modules: Any = self.inside(model)
        bounds = bounds_of(self.scorer, self._val_set)
        found = evaluate(modules.generator, self.scorer, self._val_set)
        metrics = {
            f"monitor_{key}": Metric(found[key], *bounds[key]) for key in ("match", "kid", "cosine")
        }
        return {**metrics, "monitor_diversity": Metric(found["diversity"], 0.0)}

    def prune(self, generator: TextGenerator) -> None:
        """Take out of a generator what its files need not have; here nothing."""

    def _notes(self, *, best: bool) -> str:
        which = "the best look at the monitor" if best else "the last step"
        return (
            f"{self.notes_on_samples()} Weights of {which}. Monitor: the guiding CLIP "
            f"{self.settings.scorer} on {len(self._val_set.texts)} texts; "
            "floor: the mean picture, ceiling: real pictures."
        )

    def notes_on_samples(self) -> str:
        """How it learnt, in sentences."""
        return "Learnt under a discriminator."

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped generator back; its discriminator, and an overlay it lacks, start anew."""
        modules: Any = self.inside(model)
        own = modules.generator.state_dict()
        tensors = {n: t for n, t in own.items() if n.startswith("mask_overlay.")} | dict(tensors)
        wrong = sorted(n for n in own if n in tensors and tensors[n].shape != own[n].shape)
        if wrong or set(own) != set(tensors):
            name = wrong[0] if wrong else sorted(set(own) ^ set(tensors))[0]
            raise RuntimeError(
                f"this recipe makes pictures of {self.settings.size} px with widths "
                f"{list(self.settings.channels)}; the file was made for another size or widths "
                f"({name} differs)"
            )
        modules.generator.load_state_dict(tensors)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """No weight decay: R1 and the average keep both players in bounds."""
        return False

    def close(self) -> None:
        """End the drawing workers."""
        if "scenes" in self.__dict__:
            self.scenes.close()
