"""Trains an inversion encoder: an image -> the W+ code with which a frozen generator redraws it.

A batch has two parts: the generator's own images, whose codes are known, and images of a folder
that are redrawn through the generator and compared with the truth, which costs most.  All rows of a
code share one style until ``common`` samples; then the rows get free one by one, their offsets kept
small.
Source: Tov et al. 2021 (e4e, arXiv 2102.02766), section 4: progressive training, delta loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.images import resize_tensor
from guided.generators.stylegan2 import StyleGan2
from guided.models.loading import load_embedder, load_generator, load_scorer, placed
from guided.nets.folded_encoder import FoldedStyleEncoder
from guided.nets.pixel_unshuffle import SIZE
from guided.scorers.trunk import TrunkDistance, clip_trunk
from guided.training.objective import BatchContext, Metric, ObjectiveSettings, Parts, Product
from guided.training.pair_objective import PairObjective

#: Validation images that the monitor redraws.
MONITOR_COUNT = 64
_PREFIX, _AVERAGE = "encoder.", "latent_avg"
_SAMPLES = 4096


class InverterSettings(ObjectiveSettings):
    """The ``[settings]`` of an inversion encoder's recipe."""

    generator: str = Field("stylegan2", description="the frozen generator, by name or file")
    scorer: str = Field("clip", description="whose image tower compares images")
    identity: str = Field("", description="the identity embedder; empty: none")
    frozen_precision: Precision = Field("bf16", description="precision of the frozen models")
    widths: tuple[int, ...] = Field((48, 64, 96), description="channels of the three stages")
    blocks: tuple[int, ...] = Field((1, 1, 1), description="residual blocks of the stages")
    head: int = Field(16, ge=1, description="channels of the maps that are flattened")
    hidden: int = Field(160, ge=1, description="features of each scale")
    drawn: float = Field(0.5, ge=0, le=1, description="share of images of the data to be redrawn")
    truncation: float = Field(1.0, gt=0, le=1, description="of the generator's own images")
    common: int = Field(200_000, ge=0, description="samples until the first row gets free")
    each: int = Field(10_000, ge=0, description="samples between rows that get free")
    latent: float = Field(1.0, ge=0, description="weight of the distance to known codes")
    pixels: float = Field(2.0, ge=0, description="weight of the mean absolute difference")
    features: float = Field(1.0, ge=0, description="weight of the distance of CLIP features")
    same: float = Field(0.5, ge=0, description="weight of the loss of identity")
    offsets: float = Field(0.02, ge=0, description="weight of the size of the rows' offsets")

    absent: ClassVar[frozenset[str]] = frozenset({"paired", "facts"})


@dataclass(frozen=True)
class InverterBatch:
    """Images of both kinds.

    ``images`` [n, 3, 128, 128] in [0, 1] are what the encoder sees; the first
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


class InverterObjective(PairObjective[InverterBatch]):
    """Known codes, and images that come back."""

    name = "inverter"
    Settings: ClassVar[type[ObjectiveSettings]] = InverterSettings
    #: The parts of the loss, whose weights are settings of these names.
    PARTS: ClassVar[tuple[str, ...]] = ("latent", "pixels", "features", "same")

    @property
    def size(self) -> int:
        """The side of the encoder's images."""
        return SIZE

    @cached_property
    def generator(self) -> StyleGan2:
        """The frozen generator."""
        place = placed(self.ctx.device, self.settings.frozen_precision)
        return load_generator(self.settings.generator, place)

    @cached_property
    def trunk(self) -> TrunkDistance:
        """The distance by the guiding CLIP's picture tower."""
        place = placed(self.ctx.device, self.settings.frozen_precision)
        return clip_trunk(load_scorer(self.settings.scorer, place))

    @cached_property
    def identity(self) -> Any:
        """The identity embedder, or None."""
        if not self.settings.identity:
            return None
        place = placed(self.ctx.device, self.settings.frozen_precision)
        return load_embedder(self.settings.identity, place)

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

    def build(self) -> nn.Module:
        """A fresh encoder that gives the mean code for every picture."""
        s, shape = self.settings, self.generator.net.shape
        net = FoldedStyleEncoder(shape.rows, shape.style, s.widths, s.blocks, s.head, s.hidden)
        with torch.no_grad():
            net.base.weight.mul_(0.1 * self.spread)
            net.base.bias.zero_()
        return Encoder(net)

    def batch(self, share: BatchContext) -> InverterBatch:
        """Generated images and others with known codes, then images to be redrawn."""
        known, drawn = self.known_count(share), round(self.settings.drawn * share.size)
        made = share.size - known - drawn
        counts = _mine(share, made), _mine(share, known), _mine(share, drawn)
        codes, own = self._generated(share, counts[0])
        rows = self.dataset.rows(replace(share, size=max(1, known + drawn)))[: known + drawn]
        told = self.known_codes(rows[counts[1]], share) if known else codes[:0]
        mine = list(range(known))[counts[1]] + list(range(known, known + drawn))[counts[2]]
        chosen = self.dataset.pixels(rows)[mine].to(own.device)
        targets = chosen[len(told) :].float().mul_(1 / 255)
        images = torch.cat([own, chosen])
        side = self.generator.size
        whole = BatchContext(share.seed, share.position, len(images), device=share.device)
        return InverterBatch(
            self.augmented(images, whole),
            torch.cat([codes, told]),
            resize_tensor(targets, (side, side)) if len(targets) else targets,
        )

    def known_count(self, share: BatchContext) -> int:
        """How many images of the data in a whole batch have known codes; here none."""
        return 0

    def known_codes(self, rows: np.ndarray, share: BatchContext) -> Tensor:
        """Their codes [n, rows, style]."""
        return self.average[None][:0]

    def augmented(self, images: Tensor, whole: BatchContext) -> Tensor:
        """What the encoder sees of images uint8 [n, 3, 128, 128], in [0, 1]; here all of it."""
        return images.float().mul_(1 / 255)

    @torch.no_grad()
    def _generated(self, share: BatchContext, rows: slice) -> tuple[Tensor, Tensor]:
        """Codes [n, rows, style] of random images and these, uint8 of 128 pixels."""
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

    def free(self, share: BatchContext) -> int:
        """How many rows beside the first have offsets at this position."""
        seen = share.position * share.size - self.settings.common
        rows = self.generator.net.shape.rows - 1
        if seen < 0:
            return 0
        return min(rows, 1 + seen // self.settings.each) if self.settings.each else rows

    def loss(
        self, model: nn.Module, batch: InverterBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """The weighted sum of the losses of both kinds of images."""
        base, offsets = model(batch.images)
        with torch.autocast(base.device.type, enabled=False):
            free = self.free(share)
            codes = self._code(base, offsets, free)
            known = len(batch.codes)
            zero = codes.sum() * 0
            parts = dict.fromkeys(self.PARTS, zero)
            if known:
                off = (codes[:known] - (batch.codes - self.average)) / self.spread
                parts["latent"] = off.square().mean()
                parts |= self.terms(codes[:known, 0] + self.average[0], batch.codes[:, 0])
            if len(batch.targets):
                parts |= self._redrawn(codes[known:] + self.average, batch.targets)
            applied = codes[:, 1:] - codes[:, :1]
            parts["offsets"] = (applied / self.spread).square().mean()
            weighted = [getattr(self.settings, name) * part for name, part in parts.items()]
            return torch.stack(weighted).sum(), parts

    def terms(self, styles: Tensor, true: Tensor) -> dict[str, Tensor]:
        """Further terms of styles [n, style] whose true ones are known; here none."""
        return {}

    def _redrawn(self, codes: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """How unlike the targets the images of codes are."""
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
        """How well validation images come back, and the size of the offsets."""
        figures = self._measured(model, self.val_set)
        return {f"monitor_{name}": value for name, value in figures.items()}

    @cached_property
    def val_set(self) -> Tensor:
        """Validation images [n, 3, 128, 128] in [0, 1]."""
        return self.dataset.validation(MONITOR_COUNT).images

    def judged(self) -> dict[str, Tensor]:
        """What a card's figures are measured on, by what each set is called."""
        return {"new": self.val_set}

    @torch.no_grad()
    def _measured(self, model: nn.Module | None, images: Tensor) -> dict[str, float]:
        """Mean figures over pictures [n, 3, 128, 128]; without a model those of the mean code."""
        images = images.to(self.ctx.device)
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
        """The encoder with the mean code, and how well new images return."""
        inside: Any = self.inside(model)
        metrics: dict[str, Metric] = {}
        for label, images in self.judged().items():
            floor = self._measured(None, images)
            for name, value in self._measured(model, images).items():
                low = floor[name] if name != "offsets" else None
                metrics[f"{label}_{name}"] = Metric(value, low, 0.0)
        notes = (
            f"{self.origin()} pixels: mean absolute difference; features: distance under the "
            "guiding CLIP's image tower; same: one minus the identity cosine; offsets: their mean "
            "square over that of styles; floor: the mean image for every image."
        )
        tensors = {f"{_PREFIX}{name}": t for name, t in inside.net.state_dict().items()}
        tensors[_AVERAGE] = self.average.detach().cpu()
        return Product(
            "inverter", "e4e", metrics, notes=notes, tensors=tensors, licence=self.dataset.licence
        )

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped encoder back."""
        inside: Any = self.inside(model)
        inside.net.load_state_dict(
            {k.removeprefix(_PREFIX): t for k, t in tensors.items() if k.startswith(_PREFIX)}
        )


def _mine(share: BatchContext, count: int) -> slice:
    """This process's rows of a part of the batch."""
    each = count // share.world
    return slice(share.rank * each, (share.rank + 1) * each)
