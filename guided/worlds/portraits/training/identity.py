"""Trains the identity embedder: who a drawn portrait shows, blind to what the person wears.

The network reads the whitened traits of the geometry off the picture, the face's in full and those
of pose and body with smaller weights; the embedding is that reading at unit length.  What cannot
be seen is read as its mean, 0, and so takes no part.  Besides the squared error a reading must be
nearer to its own geometry than to the others of the batch, in angle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.nets.identity import IdentityNet
from guided.nets.pixel_unshuffle import SIZE
from guided.training.objective import (
    BatchContext,
    Metric,
    Parts,
    Product,
)
from guided.worlds.portraits.attributes import TRAITS
from guided.worlds.portraits.splits import Split, sample
from guided.worlds.portraits.training.degradation import DEGRADATIONS, augment, to_float
from guided.worlds.portraits.training.person_pairs import (
    FACE,
    Embed,
    People,
    people,
    trait_weights,
    traits_of,
    verification,
)
from guided.worlds.portraits.training.pictures import PictureObjective, PictureSettings

#: World seeds of the monitor's own people, far from those of every published figure.
MONITOR_SEED, MONITOR_COUNT = 6_000_000, 192
MONITOR_KEYS = ("glasses", "hat", "beard", "expression", "hair_style")
JUDGED = 400
JUDGED_SPLITS: dict[Split, str] = {"val": "new", "test": "pairs"}


class IdentitySettings(PictureSettings):
    """The ``[settings]`` of an identity embedder's recipe."""

    repeats: int = Field(1, ge=1, description="visits to a window of shards before the next")
    widths: tuple[int, ...] = Field((48, 64, 96), description="channels of the stages")
    blocks: tuple[int, ...] = Field((1, 1, 1), description="residual blocks of the stages")
    head: int = Field(16, ge=1, description="channels of the map that is flattened")
    hidden: int = Field(96, ge=1, description="width of the layer before the embedding")
    clean: float = Field(0.3, ge=0, le=1, description="share of pictures left as drawn")
    pose: float = Field(0.3, gt=0, description="weight of tilt, place, gaze and light")
    body: float = Field(0.5, gt=0, description="weight of shoulders, neck and how hair falls")
    regression: float = Field(2.0, ge=0, description="weight of the squared error")
    contrast: float = Field(0.5, ge=0, description="weight of the cross-entropy over the batch")
    sharpness: float = Field(12.0, gt=0, description="factor on cosines in the cross-entropy")
    nearness: float = Field(1.0, ge=0, description="weight of one minus the cosine")


@dataclass(frozen=True)
class IdentityBatch:
    """Worn pictures [n, 3, 128, 128] in [0, 1] and their whitened geometry [n, 24]."""

    images: Tensor
    traits: Tensor


class IdentityHeads(nn.Module):
    """The embedder as it is trained: before its vectors are brought to unit length."""

    def __init__(self, net: IdentityNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """The weighted traits read off pictures, [B, 24] float32."""
        return self.net.code(images).float()


class IdentityObjective(PictureObjective[IdentityBatch]):
    """Geometry from pictures."""

    name = "identity"
    Settings = IdentitySettings

    @cached_property
    def monitored(self) -> People:
        """The monitor's own people."""
        return people("val", MONITOR_SEED, MONITOR_COUNT, SIZE, MONITOR_KEYS)

    def build(self) -> nn.Module:
        """A fresh embedder."""
        s = self.settings
        return IdentityHeads(IdentityNet(s.widths, s.blocks, s.head, s.hidden, len(TRAITS)))

    @cached_property
    def weights(self) -> Tensor:
        """How much each trait counts [24]."""
        return trait_weights(self.settings.pose, self.settings.body).to(self.ctx.device)

    def batch(self, share: BatchContext) -> IdentityBatch:
        """Rows of the pool, softened, with the geometry behind them."""
        found, pictures = self.pictures.take(self.rows(share, share.rows))
        traits = np.stack([traits_of(sample(int(seed), "train")) for seed in found.seeds])
        return IdentityBatch(
            augment(pictures, share, self.settings.clean), torch.from_numpy(traits)
        )

    def loss(
        self, model: nn.Module, batch: IdentityBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """Squared error of the traits, cross-entropy over the batch both ways, and angle."""
        read, meant = model(batch.images), batch.traits * self.weights
        cosines = F.normalize(read, dim=1) @ F.normalize(meant, dim=1).T
        own = torch.arange(len(read), device=read.device)
        logits = self.settings.sharpness * cosines
        parts = {
            "regression": (read - meant).square().sum(1).mean() / self.weights.square().sum(),
            "contrast": (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2,
            "nearness": 1 - cosines.diagonal().mean(),
        }
        total = torch.stack([getattr(self.settings, key) * part for key, part in parts.items()])
        return total.sum(), parts

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Verification and the effect of one change, on clean and blurred people of its own."""
        net, shown = self._embedder(model), self.monitored
        embed = embedding(net)
        found = verification(embed, shown, DEGRADATIONS["clean"])
        wanted = ("auc", "auc_twins", "moved_mean", "moved_worst")
        known = self._explained(net, shown)
        return {
            **{f"monitor_{name}": found[name] for name in wanted},
            "monitor_blur_auc": verification(embed, shown, DEGRADATIONS["blur"])["auc"],
            "monitor_face": float(known[FACE].mean()),
            "monitor_face_least": float(known[FACE].min()),
        }

    @torch.no_grad()
    def _explained(self, net: IdentityNet, shown: People) -> Tensor:
        """The share of each trait's variance [24] that is read off plain pictures."""
        place = next(net.parameters()).device
        parts = [net.code(to_float(part).to(place)) for part in torch.split(shown.plain, 128)]
        off = torch.cat(parts).float().cpu() / self.weights.cpu() - shown.traits
        return 1 - off.square().mean(0) / shown.traits.var(0)

    def product(self, model: nn.Module) -> Product:
        """The embedder alone, measured once on new and on held-out-pair people."""
        net = self._embedder(model)
        metrics: dict[str, Metric] = {}
        for split, label in JUDGED_SPLITS.items():
            shown = people(split, 0, JUDGED, SIZE)
            metrics |= figures(embedding(net), shown, label)
            for name, value in zip(TRAITS, self._explained(net, shown).tolist(), strict=True):
                metrics[f"{label}_trait_{name}"] = Metric(value, 0.0, 1.0)
        notes = (
            "auc: a person in two sets of attributes against two people; moved: one minus the "
            "cosine when one attribute changes; floor: grey thumbnails of 16 pixels; trait: the "
            f"share of its variance that is read off a picture. 'new' are {JUDGED} val people, "
            f"'pairs' {JUDGED} test people who show a held-out pair."
        )
        tensors = net.state_dict()
        return Product("identity", "identity", metrics, notes=notes, tensors=tensors)

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped embedder back."""
        inside: Any = self.inside(model)
        inside.net.load_state_dict(dict(tensors))

    def _embedder(self, model: nn.Module) -> IdentityNet:
        inside: Any = self.inside(model)
        net: IdentityNet = inside.net
        return net


def thumbnails(images: Tensor) -> Tensor:
    """The trivial embedder: grey pictures of 16 pixels, centred, as unit vectors [B, 256]."""
    grey = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), 16).flatten(1)
    return F.normalize(grey - grey.mean(1, keepdim=True), dim=1)


def embedding(net: IdentityNet) -> Embed:
    """An embedder of pictures [B, 3, H, W] that lie anywhere, as unit vectors [B, 24]."""
    place = next(net.parameters()).device
    return lambda images: net(images.to(place))


def figures(embed: Embed, shown: People, label: str) -> dict[str, Metric]:
    """An embedder's figures on people beside those of ``thumbnails``, clean and blurred."""
    found: dict[str, Metric] = {}
    for worn in ("clean", "blur"):
        values = verification(embed, shown, DEGRADATIONS[worn])
        lows = verification(thumbnails, shown, DEGRADATIONS[worn])
        for name, value in values.items():
            if worn == "clean" or name in ("auc", "auc_twins", "moved_mean", "moved_worst"):
                perfect = 0.0 if name.startswith("moved") or name == "different" else 1.0
                key = f"{label}_{name}" if worn == "clean" else f"{label}_{worn}_{name}"
                found[key] = Metric(value, lows[name], perfect)
    return found
