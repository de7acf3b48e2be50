"""Trains the inversion encoder: a picture -> the W+ code with which a frozen generator redraws it.

A batch has three parts: the generator's own pictures, whose codes are known; drawn portraits with
the codes of their facts, for generators that were trained on the world as a function of z; and
drawn portraits that are redrawn through the generator and compared with the truth, which costs
most.  All rows of a code share one style until ``common`` samples; then the rows get free one by
one, their offsets kept small.
Source: Tov et al. 2021 (e4e, arXiv 2102.02766), section 4: progressive training, delta loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.images import resize_tensor
from guided.errors import CannotDo
from guided.generators.stylegan2 import StyleGan2
from guided.nets.folded import SIZE
from guided.nets.folded_encoder import FoldedStyleEncoder
from guided.portraits.splits import Split, sample
from guided.scorers.trunk import TrunkDistance, clip_trunk
from guided.training.frozen import frozen_generator, frozen_identity, frozen_scorer, placed
from guided.training.latent_mapping import SCALE, value_columns
from guided.training.latent_world import LATENT, conditional, geometry_of
from guided.training.objective import (
    Metric,
    Objective,
    ObjectiveSettings,
    Parts,
    Product,
    Share,
)
from guided.training.person_pairs import drawn
from guided.training.pictures import Pictures
from guided.training.truth_losses import masked_cross_entropy
from guided.training.wear import soften, unit
from guided.training.world_data import Drawn

#: World seeds of the monitor's own pictures, far from those of every published figure.
MONITOR_SEED, MONITOR_COUNT = 6_100_000, 64
JUDGED = 256
JUDGED_SPLITS: dict[Split, str] = {"val": "new", "test": "pairs"}
_PREFIX, _AVERAGE = "encoder.", "latent_avg"
_SAMPLES = 4096
#: A stated fact lies this many logits above what is not.
_SHARPNESS = 8.0


class InverterSettings(ObjectiveSettings):
    """The ``[settings]`` of an inversion encoder's recipe."""

    generator: str = Field("stylegan2", description="the frozen generator, by name or file")
    scorer: str = Field("clip", description="whose picture tower compares pictures")
    identity: str = Field("identity", description="the identity embedder; empty: none")
    frozen: Precision = Field("bf16", description="precision of the frozen models")
    pictures: int = Field(300_000, ge=64, description="drawn pictures in the pool")
    repeats: int = Field(1, ge=1, description="visits to a window of shards before the next")
    widths: tuple[int, ...] = Field((48, 64, 96), description="channels of the three stages")
    blocks: tuple[int, ...] = Field((1, 1, 1), description="residual blocks of the stages")
    head: int = Field(16, ge=1, description="channels of the maps that are flattened")
    hidden: int = Field(160, ge=1, description="features of each scale")
    paired: float = Field(
        0.0, ge=0, le=1, description="share of drawn portraits with the codes of their facts"
    )
    drawn: float = Field(0.5, ge=0, le=1, description="share of drawn portraits to be redrawn")
    clean: float = Field(0.5, ge=0, le=1, description="share of pictures left as they are")
    truncation: float = Field(1.0, gt=0, le=1, description="of the generator's own pictures")
    common: int = Field(200_000, ge=0, description="samples until the first row gets free")
    each: int = Field(10_000, ge=0, description="samples between rows that get free")
    latent: float = Field(1.0, ge=0, description="weight of the distance to known codes")
    facts: float = Field(
        0.0, ge=0, description="weight of reading the world's facts off codes; needs paired"
    )
    pixels: float = Field(2.0, ge=0, description="weight of the mean absolute difference")
    features: float = Field(1.0, ge=0, description="weight of the distance of CLIP features")
    same: float = Field(0.5, ge=0, description="weight of the loss of identity")
    offsets: float = Field(0.02, ge=0, description="weight of the size of the rows' offsets")

    @model_validator(mode="after")
    def _whole(self) -> InverterSettings:
        if self.paired + self.drawn > 1:
            raise ValueError(f"paired and drawn are {self.paired + self.drawn:g} of a batch")
        if self.facts and not self.paired:
            raise ValueError("facts are known of paired portraits alone, and paired is 0")
        return self


@dataclass(frozen=True)
class InverterBatch:
    """Pictures of both kinds.

    ``images`` [n, 3, 128, 128] in [0, 1] are what the encoder sees, softened; the first
    ``len(codes)`` have known ``codes`` [k, rows, style]; ``targets`` [n - k, 3, size, size] are
    the others as they are, at the generator's size.
    """

    images: Tensor
    codes: Tensor
    targets: Tensor


class Encoder(nn.Module):
    """The encoder as it is trained: common style and offsets apart."""

    def __init__(self, net: FoldedStyleEncoder) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The common style [B, style] and the offsets [B, rows - 1, style], float32."""
        base, offsets = self.net.parts(2 * images - 1)
        return base.float(), offsets.float()


class InverterObjective(Objective[InverterBatch]):
    """Known codes, and pictures that come back."""

    name = "inverter"
    Settings = InverterSettings
    own_data = "the drawn world"

    @cached_property
    def generator(self) -> StyleGan2:
        """The frozen generator."""
        place = placed(self.around.device, self.settings.frozen)
        return frozen_generator(self.settings.generator, place)

    @cached_property
    def trunk(self) -> TrunkDistance:
        """The distance by the guiding CLIP's picture tower."""
        place = placed(self.around.device, self.settings.frozen)
        return clip_trunk(frozen_scorer(self.settings.scorer, place))

    @cached_property
    def identity(self) -> Any:
        """The identity embedder, or None."""
        if not self.settings.identity:
            return None
        place = placed(self.around.device, self.settings.frozen)
        return frozen_identity(self.settings.identity, place)

    @cached_property
    def average(self) -> Tensor:
        """The mean code [rows, style]."""
        return self.generator.middle()["w"][0]

    @cached_property
    def spread(self) -> float:
        """How far styles lie from their mean: root mean square of a number of w."""
        stream = torch.Generator().manual_seed(0)
        z = torch.randn(_SAMPLES, self.generator.net.shape.latent, generator=stream)
        return float((self._styles(z) - self.average[0]).square().mean().sqrt().clamp(min=1e-6))

    @cached_property
    def pictures(self) -> Pictures:
        """The pool of training pictures; the first touch starts drawing."""
        return Pictures.of(self.around, SIZE, self.settings.pictures)

    def build(self) -> nn.Module:
        """A fresh encoder that gives the mean code for every picture."""
        s, shape = self.settings, self.generator.net.shape
        net = FoldedStyleEncoder(shape.rows, shape.style, s.widths, s.blocks, s.head, s.hidden)
        with torch.no_grad():
            net.base.weight.mul_(0.1 * self.spread)
            net.base.bias.zero_()
        return Encoder(net)

    def batch(self, share: Share) -> InverterBatch:
        """Generated and paired pictures with their codes, then portraits to be redrawn."""
        paired, drawn = (
            round(part * share.size) for part in (self.settings.paired, self.settings.drawn)
        )
        made = share.size - paired - drawn
        counts = _mine(share, made), _mine(share, paired), _mine(share, drawn)
        codes, own = self._generated(share, counts[0])
        found, portraits = self._portraits(share, paired + drawn)
        told = self._told(found, counts[1], share) if paired else codes[:0]
        rows = list(range(paired))[counts[1]] + list(range(paired, paired + drawn))[counts[2]]
        chosen = portraits[rows].to(own.device)
        targets = unit(chosen[len(told) :])
        images = torch.cat([own, chosen])
        side = self.generator.size
        whole = Share(share.seed, share.position, len(images), device=share.device)
        return InverterBatch(
            soften(images, whole, self.settings.clean),
            torch.cat([codes, told]),
            resize_tensor(targets, (side, side)) if len(targets) else targets,
        )

    def _portraits(self, share: Share, count: int) -> tuple[Drawn, Tensor]:
        """Rows of the pool and their pictures, uint8."""
        pool = self.pictures.pool
        rows = pool.rows(share.seed, share.position, max(1, count), repeats=self.settings.repeats)[
            :count
        ]
        return self.pictures.take(rows)

    @torch.no_grad()
    def _told(self, found: Drawn, rows: slice, share: Share) -> Tensor:
        """The codes [n, rows, style] of the facts of portraits."""
        latent = self.generator.net.shape.latent
        if latent != LATENT:
            raise CannotDo(
                f"The generator {self.settings.generator!r} has a z of {latent} numbers: it does "
                f"not draw the world from its z, which has {LATENT}.",
                hint="Set paired = 0.",
            )
        people = [sample(int(seed), "train") for seed in found.seeds[rows]]
        geometry = np.stack([geometry_of(person) for person in people])
        stream = np.random.default_rng([share.number(f"facts {share.rank}")])
        z = conditional(found.codes[rows], geometry, stream)
        return self.generator.net.spread(self._styles(torch.from_numpy(z).float())).contiguous()

    @torch.no_grad()
    def _generated(self, share: Share, rows: slice) -> tuple[Tensor, Tensor]:
        """Codes [n, rows, style] of random portraits and their pictures, uint8 of 128 pixels."""
        latent = self.generator.net.shape.latent
        z = torch.randn(share.size, latent, generator=share.generator("z"))[rows]
        styles = self._styles(z)
        codes = self.average + self.settings.truncation * (styles[:, None] - self.average)
        if not len(codes):
            empty = torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8, device=codes.device)
            return codes, empty
        images = [self.generator.render({"w": part}) for part in torch.split(codes, 32)]
        sized = resize_tensor(torch.cat(images), (SIZE, SIZE))
        return codes, (255 * sized).round().to(torch.uint8)

    @torch.no_grad()
    def _styles(self, z: Tensor) -> Tensor:
        place = self.generator.device
        return self.generator.net.mapping(z.to(place.torch, place.dtype)).float()

    def _code(self, base: Tensor, offsets: Tensor, free: int) -> Tensor:
        """The code [B, rows, style] relative to the mean, the first ``free`` offsets applied."""
        kept = torch.arange(offsets.shape[1], device=offsets.device) < free
        return base[:, None] + F.pad(offsets * kept[:, None], (0, 0, 1, 0))

    def free(self, share: Share) -> int:
        """How many rows beside the first have offsets at this position."""
        seen = share.position * share.size - self.settings.common
        rows = self.generator.net.shape.rows - 1
        if seen < 0:
            return 0
        return min(rows, 1 + seen // self.settings.each) if self.settings.each else rows

    def loss(self, model: nn.Module, batch: InverterBatch, share: Share) -> tuple[Tensor, Parts]:
        """The weighted sum of the losses of both kinds of pictures."""
        base, offsets = model(batch.images)
        with torch.autocast(base.device.type, enabled=False):
            free = self.free(share)
            codes = self._code(base, offsets, free)
            known = len(batch.codes)
            zero = codes.sum() * 0
            parts = dict.fromkeys(("latent", "facts", "pixels", "features", "same"), zero)
            if known:
                off = (codes[:known] - (batch.codes - self.average)) / self.spread
                parts["latent"] = off.square().mean()
                if self.settings.facts:
                    own = codes[:known, 0] + self.average[0]
                    parts["facts"] = fact_loss(own, batch.codes[:, 0])
            if len(batch.targets):
                parts |= self._redrawn(codes[known:] + self.average, batch.targets)
            applied = codes[:, 1:] - codes[:, :1]
            parts["offsets"] = (applied / self.spread).square().mean()
            weighted = [getattr(self.settings, name) * part for name, part in parts.items()]
            return torch.stack(weighted).sum(), parts

    def _redrawn(self, codes: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """How unlike the targets the pictures of codes are."""
        images = self.generator.render({"w": codes})
        found = {"pixels": (images - targets).abs().mean()}
        with torch.no_grad():
            wanted = self.trunk.features(targets)
        found["features"] = self.trunk.distance(self.trunk.features(images), wanted).mean()
        if self.identity is not None:
            with torch.no_grad():
                before = self.identity.embed_images(targets)
            found["same"] = 1 - (self.identity.embed_images(images) * before).sum(1).mean()
        return found

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """How well drawn portraits of the monitor's own come back, and the size of the offsets."""
        portraits = [sample(MONITOR_SEED + i, "val") for i in range(MONITOR_COUNT)]
        found = self._measured(model, unit(drawn(portraits, SIZE)))
        return {f"monitor_{name}": value for name, value in found.items()}

    @torch.no_grad()
    def _measured(self, model: nn.Module | None, images: Tensor) -> dict[str, float]:
        """Mean figures over pictures [n, 3, 128, 128]; without a model those of the mean code."""
        images = images.to(self.around.device)
        side = self.generator.size
        sums: dict[str, float] = {}
        for part in torch.split(images, 32):
            base, offsets = torch.zeros(2, 1, 1), torch.zeros(1, 1, 1)
            codes = self.average.expand(len(part), -1, -1)
            if model is not None:
                base, offsets = model(part)
                codes = codes + self._code(base, offsets, offsets.shape[1])
            found = self._redrawn(codes, resize_tensor(part, (side, side)))
            found["offsets"] = (offsets / self.spread).square().mean()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part)
        return {name: total / len(images) for name, total in sums.items()}

    def product(self, model: nn.Module) -> Product:
        """The encoder with the mean code, and how well new and held-out-pair portraits return."""
        inside: Any = self.inside(model)
        metrics: dict[str, Metric] = {}
        for split, label in JUDGED_SPLITS.items():
            images = unit(drawn([sample(i, split) for i in range(JUDGED)], SIZE))
            floor = self._measured(None, images)
            for name, value in self._measured(model, images).items():
                low = floor[name] if name != "offsets" else None
                metrics[f"{label}_{name}"] = Metric(value, low, 0.0)
        notes = (
            "pixels: mean absolute difference; features: distance under the guiding CLIP's "
            "picture tower; same: one minus the identity cosine; offsets: their mean square over "
            "that of styles; floor: the mean portrait for every picture."
        )
        tensors = {f"{_PREFIX}{name}": t for name, t in inside.net.state_dict().items()}
        tensors[_AVERAGE] = self.average.detach().cpu()
        return Product("inverter", "e4e", metrics, notes=notes, tensors=tensors)

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped encoder back."""
        inside: Any = self.inside(model)
        inside.net.load_state_dict(
            {k.removeprefix(_PREFIX): t for k, t in tensors.items() if k.startswith(_PREFIX)}
        )

    def close(self) -> None:
        """End the drawing workers."""
        if "pictures" in self.__dict__:
            self.pictures.pool.close()


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


def _mine(share: Share, count: int) -> slice:
    """This process's rows of a part of the batch."""
    each = count // share.world
    return slice(share.rank * each, (share.rank + 1) * each)
