"""Trains a text-to-image GAN on drawn portraits or on a folder of captioned pictures.

The discriminator calls one thing real, a picture with its own text, and two things not: a generated
picture, and a real picture with a text that is wrong in one thing.  In the drawn world the wrong
text is the caption with one mentioned attribute changed; in a folder it is another picture's.
Rows are told by the text, by the picture's own CLIP feature (so that the GAN can vary a picture),
or nothing.  In the drawn world z and caption together say what the picture shows
(``guided.training.text_gan_world``), so training may begin as a regression, or keep some of it.
Sources: Reed et al. 2016 (matching-aware discriminator); Zhou et al. 2022 (LAFITE, features in the
place of texts); the losses are named in ``guided.training.text_gan_players``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.files import make_folder, write_bytes
from guided.errors import CannotDo
from guided.nets.text_gan import TextGanShape
from guided.portraits.attributes import KEYS, VALUES
from guided.scorers.clip import ClipScorer
from guided.training.frozen import frozen_scorer, placed
from guided.training.latent_mapping import DEPTH, install
from guided.training.objective import (
    Metric,
    Objective,
    ObjectiveSettings,
    Parts,
    Product,
    Share,
)
from guided.training.picture_losses import detail, edges, feature_distance
from guided.training.text_gan_folder import FolderScenes
from guided.training.text_gan_monitor import bounds_of, look_at, sample_sheet
from guided.training.text_gan_players import GradientNorms, Players, Seen, Turn, critic_loss
from guided.training.text_gan_world import Looks, Mix, TextGanBatch, WorldScenes, world_looks
from guided.training.truth_losses import FACTS, facts_apart, masked_cross_entropy

#: World seeds of the monitor's own portraits, far from those of every published figure.
MONITOR_SEED = 6_100_000
#: Rows on which the adaptive augmentation's chance takes to go from 0 to 1.
_ADAPTED = 50_000
_SIGN = KEYS.index("sign")


class TextGanSettings(ObjectiveSettings):
    """The ``[settings]`` of a text GAN's recipe; counts of samples are over the whole training."""

    size: int = Field(128, ge=16, description="side of the pictures")
    scorer: str = Field("clip", description="the guiding CLIP")
    frozen: Precision = Field("fp32", description="its precision")
    pictures: int = Field(300_000, ge=16, description="drawn pictures in the pool")
    repeats: int = Field(2, ge=1, description="visits to a window of shards before the next")
    channels: tuple[int, ...] = Field((136, 136, 104, 64, 32), description="from 4 px up")
    style: int = Field(144, ge=1)
    hidden: int = Field(224, ge=1)
    latent: int = Field(128, ge=1, description="size of z; the drawn world has its own, 128")
    finish: int = Field(8, ge=1, description="channels at the full side")
    critic: tuple[int, ...] = Field((32, 64, 96, 144, 160), description="from half the side down")
    features: int = Field(192, ge=1)
    group: int = Field(8, ge=2, description="rows that the minibatch statistic compares")
    image_share: float = Field(0.25, ge=0, le=1, description="rows told by their picture")
    free_share: float = Field(0.10, ge=0, le=1, description="rows told nothing")
    noise: float = Field(0.1, ge=0, lt=1, description="noise mixed into texts")
    writing: float = Field(0.0, ge=0, description="weight of picking the word's own mask (0: none)")
    given: bool = Field(False, description="z passes the known mapping of the drawn world first")
    paired: int = Field(0, ge=0, description="samples of regression before the discriminator")
    pixels: float = Field(4.0, ge=0, description="weight of the absolute difference (regression)")
    details: float = Field(2.0, ge=0, description="more for pixels unlike their surround")
    edges: float = Field(2.0, ge=0, description="weight of neighbours' differences (regression)")
    maps: float = Field(0.5, ge=0, description="weight of the CLIP's maps (regression)")
    facts: float = Field(0.5, ge=0, description="weight of reading attributes off the styles")
    kept: float = Field(0.0, ge=0, description="weight of the regression beside the discriminator")
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


class TextGanObjective(Objective[TextGanBatch]):
    """Matched real pictures against generated and mismatched ones."""

    name = "text_gan"
    Settings = TextGanSettings

    def __init__(self, settings: TextGanSettings, around: Any) -> None:
        """Raises ``CannotDo`` where a folder is to be learnt as a regression."""
        super().__init__(settings, around)
        self._built: Players | None = None
        self._seen = 0
        if around.data is not None and (self._regresses or settings.given or settings.writing):
            raise CannotDo(
                "Only the drawn world can be learnt as a regression: nobody knows the z of your "
                f"pictures; given: paired = {settings.paired}, kept = {settings.kept:g}, "
                f"writing = {settings.writing:g}, given = {settings.given} with --data.",
                hint="Set settings.paired=0, settings.kept=0, settings.writing=0 and "
                "settings.given=false, as recipes/train/text_gan_folder.toml does.",
            )

    @property
    def _regresses(self) -> bool:
        return bool(self.settings.paired or self.settings.kept)

    @cached_property
    def scorer(self) -> ClipScorer:
        """The guiding CLIP."""
        return frozen_scorer(self.settings.scorer, placed(self.around.device, self.settings.frozen))

    @cached_property
    def scenes(self) -> WorldScenes | FolderScenes:
        """Where pictures and texts come from."""
        s = self.settings
        mix = Mix(s.image_share, s.free_share, s.noise)
        if self.around.data is not None:
            return FolderScenes(self.around.data, self.scorer, s.size, s.latent, mix)
        return WorldScenes(self.around, self.scorer, s.size, s.pictures, s.repeats, mix)

    def build(self) -> nn.Module:
        """Generator and discriminator, fresh."""
        s = self.settings
        shape = TextGanShape(
            s.size, self.scorer.width, self.scenes.latent, s.channels, s.style, s.hidden, s.finish,
            DEPTH if s.given else 0,
            len(VALUES["sign"]) if self._regresses and s.writing else 0,
        )  # fmt: skip
        facts = FACTS if self._regresses and s.facts else 0
        self._built = Players(shape, s.critic, s.features, s.group, facts)
        if s.given:
            install(self._built.generator.given)
        self._norms = GradientNorms(generator=self._built.generator, critic=self._built.critic)
        return self._built

    def batch(self, share: Share) -> TextGanBatch:
        """Pictures, z, what is said of them, and what is not true."""
        return self.scenes.batch(share)

    def turn(self, share: Share) -> Turn:
        """What happens at a position: a function of the samples seen alone."""
        s = self.settings
        seen = share.position * share.size
        if seen < s.paired:
            return Turn(plays=False)
        pull = min(1.0, (seen - s.paired + share.size) / s.ramp) if s.ramp else 1.0
        lazy = s.r1 * s.r1_every if share.position % s.r1_every == 0 else 0.0
        return Turn(True, pull, lazy)

    def loss(self, model: nn.Module, batch: TextGanBatch, share: Share) -> tuple[Tensor, Parts]:
        """Both players' losses, the CLIP term, and the regression where there is one."""
        turn, parts = self.turn(share), self._norms.fresh(batch.z.device)
        self._seen = share.position * share.size
        real = batch.pictures.float().div(127.5).sub(1)
        real = real.contiguous(memory_format=torch.channels_last)
        seen: Seen = model(turn, real, batch.z, batch.text, batch.wrong, batch.luck)
        total = seen.made.sum() * 0
        if seen.real is not None and seen.fake is not None:
            parts["critic"] = critic_loss(seen, batch.mismatched)
            total = total + parts["critic"]
            if seen.penalty is not None:
                total = total + seen.penalty
            parts |= self._signs(seen, batch)
            self._adapt(seen.real.detach(), share)
        if self._regresses:
            part, found = self._regression(model, seen, real, batch)
            total = total + (self.settings.kept if turn.plays else 1.0) * part
            parts |= found
        weight = self._clip_weight(self._seen)
        if weight and turn.plays:
            parts["clip"] = self._clip(seen.made, batch.text)
            total = total + weight * parts["clip"]
        if share.world > 1 and not turn.plays:  # every parameter takes part, if by nothing
            bare: Any = self.inside(model)
            total = total + 0 * sum(p.sum() for p in bare.critic.parameters())
        return total, parts

    @torch.no_grad()
    def _signs(self, seen: Seen, batch: TextGanBatch) -> dict[str, Tensor]:
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
    def _adapt(self, logits: Tensor, share: Share) -> None:
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
            return isinstance(self.scenes, FolderScenes) and self.scenes.small
        return bool(self.settings.adapt == "on")

    def _regression(
        self, model: nn.Module, seen: Seen, real: Tensor, batch: TextGanBatch
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
        if s.writing:
            parts["writing"] = self._writing(bare, seen.styles, batch.truth[:, _SIGN])
            total = total + s.writing * parts["writing"]
        if bare.facts is not None:
            parts["facts"] = facts_apart(bare.facts(seen.styles), batch.truth)
            total = total + s.facts * parts["facts"]
        return total, parts

    def _writing(self, players: Any, styles: Tensor, written: Tensor) -> Tensor:
        """How surely styles [n, style] pick the mask of what is written (-1: not seen), []."""
        return masked_cross_entropy(players.generator.stencil.picked(styles).float(), written)

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
    def _looks(self) -> Looks:
        s = self.settings
        if isinstance(self.scenes, FolderScenes):
            return self.scenes.looks(s.looks)
        return world_looks(self.scorer, s.size, s.looks, MONITOR_SEED, "val")

    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The guiding CLIP's figures; the best weights by its score are kept."""
        players: Any = self.inside(model)
        found = look_at(players.generator, self.scorer, self._looks)
        if self._built is not None and self._seen >= self.settings.keep_from:
            self._built.best.offer(found["score"], players.generator)
        if self.settings.sheets:
            sheet = sample_sheet(players.generator, self._looks)
            folder = make_folder(Path(self.settings.sheets))
            write_bytes(folder / f"{self._seen:09d}.png", sheet)
        chance = float(self._built.chance) if self._built is not None else 0.0
        return {**{f"monitor_{key}": value for key, value in found.items()}, "adapt": chance}

    def product(self, model: nn.Module) -> Product:
        """The generator alone, of the best look, with its configuration."""
        players: Any = self.inside(model)
        best = self._built is not None and self._built.best.put_into(players.generator)
        if players.generator.stencil is not None:
            players.generator.stencil.prune(empty=(VALUES["sign"].index("none"),))
        bounds = bounds_of(self.scorer, self._looks)
        found = look_at(players.generator, self.scorer, self._looks)
        metrics = {
            f"monitor_{key}": Metric(found[key], *bounds[key]) for key in ("match", "kid", "cosine")
        }
        metrics["monitor_diversity"] = Metric(found["diversity"], 0.0)
        return Product(
            "text_gan",
            "text_gan",
            metrics,
            notes=self._notes(best=best),
            settings={
                **players.generator.shape.plain(),
                "scorer": self.settings.scorer,
                "words": self.scenes.words(),
            },
            tensors={k: v.contiguous() for k, v in players.generator.state_dict().items()},
            files={"samples.png": sample_sheet(players.generator, self._looks, rows=4)},
        )

    def _notes(self, *, best: bool) -> str:
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
        which = "the best look at the monitor" if best else "the last step"
        return (
            f"{' '.join(told)} Weights of {which}. Monitor: the guiding CLIP {s.scorer} on "
            f"{len(self._looks.texts)} texts; floor: the mean picture, ceiling: real pictures."
        )

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped generator back; its discriminator, and a stencil it lacks, start anew."""
        players: Any = self.inside(model)
        own = players.generator.state_dict()
        tensors = {n: t for n, t in own.items() if n.startswith("stencil.")} | dict(tensors)
        wrong = sorted(n for n in own if n in tensors and tensors[n].shape != own[n].shape)
        if wrong or set(own) != set(tensors):
            name = wrong[0] if wrong else sorted(set(own) ^ set(tensors))[0]
            raise RuntimeError(
                f"this recipe makes pictures of {self.settings.size} px with widths "
                f"{list(self.settings.channels)}; the file was made for another size or widths "
                f"({name} differs)"
            )
        players.generator.load_state_dict(tensors)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """No weight decay: R1 and the average keep both players in bounds."""
        return False

    def close(self) -> None:
        """End the drawing workers."""
        if "scenes" in self.__dict__:
            self.scenes.close()
