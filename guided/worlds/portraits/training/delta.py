"""Trains the delta mapper: from what changed between two pictures to what changed in the latent.

A batch is made of groups.  Within a group some random portraits, the same in every group of the
batch, get the same new values in the same components of z, so what the group's pictures have in
common is that change alone.  The mapper sees a portrait's code and features and a direction in
CLIP's space: the change of its own picture, or the mean change of its group, which is what a text
can say ("pink hair", whatever it was).
Source: Lyu et al. 2023 (DeltaEdit, arXiv 2303.06285); the groups are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.generators.stylegan2 import StyleGan2
from guided.models.loading import load_generator, load_scorer, placed
from guided.nets.delta import DeltaNet
from guided.scorers.clip import ClipScorer
from guided.training.objective import (
    BatchContext,
    Metric,
    ObjectiveSettings,
    Parts,
    Product,
    TrainingObjective,
)
from guided.worlds.portraits.attributes import KEYS

#: Batch positions of the monitor and of the card's figures, which no training reaches.
MONITOR_POSITION, JUDGED_POSITION, LOOKS = 10**9, 2 * 10**9, 4
_SAMPLES = 4096


class DeltaSettings(ObjectiveSettings):
    """The ``[settings]`` of a delta mapper's recipe."""

    generator: str = Field("stylegan2", description="the frozen generator, by name or file")
    scorer: str = Field("clip", description="the guiding CLIP")
    frozen_precision: Precision = Field("bf16", description="precision of the frozen models")
    middle: int = Field(192, ge=1, description="width of what is made of features and direction")
    hidden: int = Field(256, ge=1, description="width of the layers behind")
    group: int = Field(8, ge=2, description="portraits of a batch; all get each change")
    parts: Literal["any", "world"] = Field(
        "any", description="what changes: runs of components, or those of one fact of the world"
    )
    longest: int = Field(24, ge=1, description="components in the longest run")
    pairs: float = Field(0.25, ge=0, le=1, description="share of groups that change two of them")
    own: float = Field(0.7, ge=0, le=1, description="share of directions of the picture itself")
    noise: float = Field(0.6, ge=0, description="largest noise on directions, by their length")
    blur: float = Field(0.1, ge=0, description="noise on codes, by their spread: inversion errs")
    truncation: float = Field(0.9, gt=0, le=1, description="how far portraits stray from the mean")
    mixing: float = Field(0.2, ge=0, le=1, description="share of codes with rows of another")
    distance: float = Field(1.0, ge=0, description="weight of the squared distance")
    angle: float = Field(0.5, ge=0, description="weight of one minus the cosine")


@dataclass(frozen=True)
class DeltaBatch:
    """Codes [n, rows, style], features [n, D], directions [n, D] and changes [n, rows, style].

    ``codes`` are noisy, as those of an inversion are; ``changes`` are between the clean ones.
    ``weights`` [n] are small where a change shows little in the picture.
    """

    codes: Tensor
    seen: Tensor
    directions: Tensor
    changes: Tensor
    weights: Tensor


class DeltaObjective(TrainingObjective[DeltaBatch]):
    """Squared distance and angle between the true change of the latent and the mapper's."""

    name = "delta"
    Settings = DeltaSettings

    @cached_property
    def generator(self) -> StyleGan2:
        """The frozen generator."""
        place = placed(self.ctx.device, self.settings.frozen_precision)
        return load_generator(self.settings.generator, place)

    @cached_property
    def scorer(self) -> ClipScorer:
        """The guiding CLIP."""
        return load_scorer(
            self.settings.scorer, placed(self.ctx.device, self.settings.frozen_precision)
        )

    @cached_property
    def spread(self) -> float:
        """How far styles lie from their mean: root mean square of a number of w."""
        stream = torch.Generator().manual_seed(0)
        z = torch.randn(_SAMPLES, self.generator.net.shape.latent, generator=stream)
        off = self._styles(z) - self.generator.middle()["w"][0, 0]
        return float(off.square().mean().sqrt().clamp(min=1e-6))

    def build(self) -> nn.Module:
        """A fresh mapper that knows the generator's mean and spread."""
        s, shape = self.settings, self.generator.net.shape
        net = DeltaNet(shape.rows, shape.style, self.scorer.width, middle=s.middle, hidden=s.hidden)
        net.average.copy_(self.generator.middle()["w"][0])
        net.spread.fill_(self.spread)
        return net

    def spans(self, stream: torch.Generator, count: int) -> list[list[slice]]:
        """Which components of z change in each of ``count`` groups: one part of them or two."""
        two = (torch.rand(count, generator=stream) < self.settings.pairs).tolist()
        parts = self._parts(stream, 2 * count)
        return [
            parts[i : i + 1 + both] for i, both in zip(range(0, 2 * count, 2), two, strict=True)
        ]

    def _parts(self, stream: torch.Generator, count: int) -> list[slice]:
        if self.settings.parts == "world":
            known = world_spans()
            picks = torch.randint(len(known), (count,), generator=stream).tolist()
            return [known[pick] for pick in picks]
        latent = self.generator.net.shape.latent
        uniform = torch.rand(count, 2, generator=stream).tolist()
        found = []
        for where, how in uniform:
            length = 1 + int(how * min(self.settings.longest, latent))
            start = int(where * (latent - length + 1))
            found.append(slice(start, start + length))
        return found

    @torch.no_grad()
    def batch(self, share: BatchContext) -> DeltaBatch:
        """Random portraits before and after the change of their group."""
        s, latent = self.settings, self.generator.net.shape.latent
        stream = share.generator("delta")
        groups = -(-share.size // s.group)
        total = groups * s.group
        pair = torch.randn(2, s.group, latent, generator=stream)
        fresh = torch.randn(groups, latent, generator=stream)
        cuts = torch.rand(s.group, 2, generator=stream)
        uniform = torch.rand(total, 2, generator=stream)
        noise = torch.randn(total, self.scorer.width, generator=stream)
        changed = pair[:, None].repeat(1, groups, 1, 1)
        for group, spans in enumerate(self.spans(stream, groups)):
            for span in spans:
                changed[:, group, :, span] = fresh[group, span]
            if self.settings.parts == "world":
                changed[:, group] = plain_hats(changed[:, group], pair)
        base = self._codes(pair[0], pair[1], cuts)
        z, other = changed.view(2, total, latent).unbind()
        after = self._codes(z, other, cuts.repeat(groups, 1))
        before = base.repeat(groups, 1, 1)
        seen = self._features(base).repeat(groups, 1)
        own = self._features(after) - seen
        place = seen.device
        shared = own.view(groups, s.group, -1).mean(1).repeat_interleave(s.group, 0)
        asked = torch.where(uniform[:, :1].to(place) < s.own, own, shared)
        length = own.norm(dim=1)
        grain = F.normalize(noise.to(place), dim=1) * s.noise * uniform[:, 1:].to(place)
        directions = F.normalize(F.normalize(asked, dim=1) + grain, dim=1)
        weights = (length / length.median().clamp(min=1e-6)).clamp(max=1)
        err = torch.randn(before.shape[0], 1, before.shape[2], generator=stream).to(place)
        noisy = before + s.blur * self.spread * err
        made = DeltaBatch(noisy, seen, directions, after - before, weights)
        return DeltaBatch(*(part[share.rows] for part in vars(made).values()))

    def _codes(self, z: Tensor, other: Tensor, cuts: Tensor) -> Tensor:
        """Codes [n, rows, style]; of a share of them the later rows belong to ``other``.

        ``cuts`` [n, 2] are uniform numbers: whether a code is mixed, and from which row on.
        """
        shape = self.generator.net.shape
        rows = torch.arange(shape.rows)
        first = torch.where(
            cuts[:, 0] < self.settings.mixing, 1 + (cuts[:, 1] * (shape.rows - 1)).long(), 10**6
        )
        later = (rows[None] >= first[:, None]).to(self.generator.device.torch)[..., None]
        styles, others = self._styles(z)[:, None], self._styles(other)[:, None]
        average: Tensor = self.generator.middle()["w"][0]
        whole = torch.where(later, others, styles)
        codes: Tensor = average + self.settings.truncation * (whole - average)
        return codes

    def _styles(self, z: Tensor) -> Tensor:
        place = self.generator.device
        with torch.no_grad():
            return self.generator.net.mapping(z.to(place.torch, place.dtype)).float()

    def _features(self, codes: Tensor) -> Tensor:
        """Unit features [n, D] of the pictures of codes."""
        parts = [
            self.scorer.embed_images(self.generator.render({"w": part}))
            for part in torch.split(codes, 32)
        ]
        return torch.cat(parts)

    def loss(
        self, model: nn.Module, batch: DeltaBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """Distance over the mean size of styles, and angle, weighted by what a change shows."""
        change = model(batch.codes, batch.seen, batch.directions).float()
        weights = batch.weights / batch.weights.sum().clamp(min=1e-6)
        off = ((change - batch.changes) / self.spread).square().mean((1, 2))
        cosine = F.cosine_similarity(change.flatten(1), batch.changes.flatten(1), dim=1)
        parts = {"distance": (weights * off).sum(), "angle": (weights * (1 - cosine)).sum()}
        total = self.settings.distance * parts["distance"] + self.settings.angle * parts["angle"]
        return total, parts

    def monitor(self, model: nn.Module) -> dict[str, float]:
        """How well unseen changes are found, and what CLIP sees of them afterwards."""
        found = self._measured(model, MONITOR_POSITION)
        return {f"monitor_{name}": value for name, value in found.items()}

    @torch.no_grad()
    def _measured(self, model: nn.Module, first: int) -> dict[str, float]:
        """``explained``: share of the change's square; ``cosine`` with the true change; ``moved``:
        cosine of the picture's move in CLIP's space with the direction asked for.
        """
        sums = {"explained": 0.0, "cosine": 0.0, "moved": 0.0}
        for position in range(first, first + LOOKS):
            batch = self.batch(BatchContext(self.ctx.seed, position, 8 * self.settings.group))
            place = next(model.parameters()).device
            parts = [part.to(place) for part in vars(batch).values()]
            codes, seen, directions, changes, _ = parts
            change = model(codes, seen, directions).float()
            lost = (change - changes).square().sum() / changes.square().sum().clamp(min=1e-9)
            along = F.cosine_similarity(change.flatten(1), changes.flatten(1), dim=1).mean()
            move = self._features((codes + change).to(self.generator.device.torch)) - seen
            sums["explained"] += 1 - float(lost)
            sums["cosine"] += float(along)
            sums["moved"] += float((F.normalize(move, dim=1) * directions).sum(1).mean())
        return {name: value / LOOKS for name, value in sums.items()}

    @torch.no_grad()
    def _stretch(self, model: nn.Module) -> float:
        """Give changes the length that true ones have, and return the factor.

        What is learnt by squared distance is the shorter the less sure it is.
        """
        whole = torch.zeros(2, dtype=torch.float64)
        place = next(model.parameters()).device
        for position in range(MONITOR_POSITION, MONITOR_POSITION + LOOKS):
            batch = self.batch(BatchContext(self.ctx.seed, position, 8 * self.settings.group))
            codes, seen, directions, changes, _ = (p.to(place) for p in vars(batch).values())
            made = model(codes, seen, directions).float()
            for i, each in enumerate((changes, made)):
                whole[i] += each.double().square().sum().cpu()
        factor = float((whole[0] / whole[1].clamp(min=1e-12)).sqrt())
        bare: Any = self.inside(model)
        last = bare.change[-1]
        for leaf in (last.weight, last.bias):
            leaf.copy_((factor * leaf).half().float())
        return factor

    def product(self, model: nn.Module) -> Product:
        """The mapper, and how well it finds changes of portraits it has not seen."""
        factor = self._stretch(model)
        metrics = self.card_figures(model)
        notes = (
            "explained: share of the squared change of the latent; cosine: with the true change; "
            "moved: cosine of the picture's move in CLIP's space with the direction; floor: no "
            f"change. Belongs to the generator {self.settings.generator} and the CLIP "
            f"{self.settings.scorer}. Changes were stretched by {factor:.2f}, to the length of "
            "true ones."
        )
        return Product("delta", "delta", metrics, notes=notes)

    def card_figures(self, model: nn.Module) -> dict[str, Metric]:
        """How well unseen changes are found, without a stretch."""
        found = self._measured(model, JUDGED_POSITION)
        return {name: Metric(value, 0.0, 1.0) for name, value in found.items()}

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped mapper back."""
        self.inside(model).load_state_dict(dict(tensors))


def plain_hats(after: Tensor, before: Tensor) -> Tensor:
    """Vectors z [..., 128] in which a hat that ``before`` lacks has the first colour it can have.

    The colour of no hat is hidden in z, and a text that asks for a hat seldom names one.
    """
    from guided.worlds.portraits.training.latent_world import LATENT, facts, trees

    hat = KEYS.index("hat")
    had, has = (
        torch.from_numpy(facts(z.reshape(-1, LATENT).double().numpy())[0][:, hat] > 0)
        for z in (before, after)
    )
    new = (has & ~had).view(after.shape[:-1])
    found = after.clone()
    for cut, above in trees()["hat_color"].paths[0]:
        own = found[..., cut.component]
        side = cut.threshold + (own.abs() + 0.2) * (1 if above else -1)
        found[..., cut.component] = torch.where(new, side, own)
    return found


def world_spans() -> list[slice]:
    """Where each attribute of the drawn world lies in z, and one component of each trait."""
    from guided.worlds.portraits.training.latent_world import traits, trees

    found = [slice(t.components.start, t.components.stop) for t in trees().values()]
    shape = traits()
    return found + [slice(place, place + 3) for place in range(shape.start, shape.stop, 6)]
