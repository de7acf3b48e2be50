"""Trains the reader: the attribute classifier that judges pictures of the drawn world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.nets.reader import SIZE, ReaderNet
from guided.training.objective import (
    BatchContext,
    Metric,
    Parts,
    Product,
)
from guided.worlds.portraits import KEYS
from guided.worlds.portraits.attributes import COLOR_KEYS
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.training.degradation import DEGRADATIONS, degrade, recolor
from guided.worlds.portraits.training.pictures import PictureObjective, PictureSettings, drawn_apart
from guided.worlds.portraits.training.reading import (
    CLASSES,
    accuracies,
    architecture,
    fit_domain,
    floors,
    guess,
)

#: World seeds of the monitor's own pictures, far from those of every published figure.
MONITOR_SEED, MONITOR_COUNT = 5_000_000, 1024
JUDGED = 1000
#: Which attributes [13] are colours.
COLORED = torch.tensor([key in COLOR_KEYS for key in KEYS])
JUDGED_SPLITS: dict[Split, str] = {"val": "new", "test": "pairs"}


class ReaderSettings(PictureSettings):
    """The ``[settings]`` of a reader's recipe."""

    widths: tuple[int, ...] = Field((64, 96, 128), description="channels of the stages")
    blocks: tuple[int, ...] = Field((1, 1, 1), description="residual blocks of the stages")
    head: int = Field(16, ge=1, description="channels of the map that is flattened")
    features: int = Field(256, ge=1, description="width of the layer before the answers")
    clean: float = Field(0.35, ge=0, le=1, description="share of pictures left as drawn")
    recolored: float = Field(0.25, ge=0, le=1, description="share of pictures in other colours")
    smoothing: float = Field(0.02, ge=0, lt=1, description="label smoothing")


@dataclass(frozen=True)
class ReaderBatch:
    """Worn pictures [n, 3, 128, 128] in [0, 1], codes [n, 13] int64 and what is visible [n, 13]."""

    images: Tensor
    codes: Tensor
    visible: Tensor


class ReaderObjective(PictureObjective[ReaderBatch]):
    """Cross-entropy of each visible attribute on pictures with wear and tear."""

    name = "reader"
    Settings = ReaderSettings

    def build(self) -> nn.Module:
        """A fresh ``ReaderNet``."""
        s = self.settings
        return ReaderNet(CLASSES, s.widths, s.blocks, s.head, s.features)

    def batch(self, share: BatchContext) -> ReaderBatch:
        """Rows of the pool, most of them worn."""
        drawn, pictures = self.pictures.take(self.rows(share, share.rows))
        images = degrade(pictures, share, self.settings.clean)
        images, recolored = recolor(images, share, self.settings.recolored)
        visible = torch.from_numpy(drawn.visible)
        visible &= ~(recolored.cpu()[:, None] & COLORED[None])
        return ReaderBatch(images, torch.from_numpy(drawn.codes.astype(np.int64)), visible)

    def loss(
        self, model: nn.Module, batch: ReaderBatch, share: BatchContext
    ) -> tuple[Tensor, Parts]:
        """The mean over attributes of the mean cross-entropy of rows that show them."""
        logits = model(batch.images).float()
        codes, seen = batch.codes, batch.visible
        targets = torch.where(seen, codes, torch.full_like(codes, -100))
        losses, right = [], []
        for column, answers in enumerate(torch.split(logits, list(CLASSES), dim=1)):
            target = targets[:, column]
            loss = F.cross_entropy(
                answers, target, label_smoothing=self.settings.smoothing, reduction="sum"
            )
            losses.append(loss / seen[:, column].sum().clamp(min=1))
            right.append((answers.argmax(1) == target).sum() / seen[:, column].sum().clamp(min=1))
        rates = torch.stack(right).detach()
        worst = {"accuracy": rates.mean(), "worst": rates.min(), "sign": rates[KEYS.index("sign")]}
        return torch.stack(losses).mean(), worst

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Mean and worst accuracy over attributes on clean pictures of the monitor's own."""
        scores, _ = self._scores(model, "val", MONITOR_SEED, MONITOR_COUNT, "clean")
        worst = min(scores, key=lambda key: scores[key])
        return {
            "monitor_mean": float(np.mean(list(scores.values()))),
            "monitor_worst": scores[worst],
        }

    @torch.no_grad()
    def product(self, model: nn.Module) -> Product:
        """Fits what is a drawn portrait, then measures new and held-out-pair pictures once."""
        assert isinstance(model, ReaderNet)
        fit_domain(model, self._domain_pictures(model))
        notes = (
            "Accuracy on visible attributes: 'new' are 1,000 val portraits, 'pairs' 1,000 test "
            "portraits that show a held-out pair; floor: always the most frequent value."
        )
        return Product(
            role="reader", kind="reader", metrics=self.card_figures(model), notes=notes,
            settings=architecture(model),
        )  # fmt: skip

    @torch.no_grad()
    def card_figures(self, model: nn.Module) -> dict[str, Metric]:
        """Accuracies on new and on held-out-pair pictures, clean and worn."""
        metrics: dict[str, Metric] = {}
        for split, label in JUDGED_SPLITS.items():
            for worn in DEGRADATIONS:
                scores, lows = self._scores(model, split, 0, JUDGED, worn)
                kind = f"{label}_{worn}"
                mean, low = (float(np.mean(list(table.values()))) for table in (scores, lows))
                worst = min(scores, key=lambda key: scores[key])
                metrics[f"{kind}_mean"] = Metric(mean, low, 1)
                metrics[f"{kind}_worst"] = Metric(scores[worst], lows[worst], 1)
                if worn == "clean":
                    for key, value in scores.items():
                        metrics[f"{kind}_{key}"] = Metric(value, lows[key], 1)
        return metrics

    def _scores(
        self, model: nn.Module, split: Split, first: int, count: int, worn: str
    ) -> tuple[dict[str, float], dict[str, float]]:
        drawn, pictures = drawn_apart(self.ctx, split, first, SIZE, count)
        guesses = []
        for share in range(0, count, 128):
            images = DEGRADATIONS[worn](pictures[share : share + 128])
            guesses.append(guess(model, images.to(next(model.parameters()).device)))
        return (
            accuracies(np.concatenate(guesses), drawn.codes, drawn.visible),
            floors(drawn.codes, drawn.visible),
        )

    def _domain_pictures(self, model: ReaderNet) -> Iterator[Tensor]:
        device = next(model.parameters()).device
        for position in range(48):
            share = BatchContext(self.ctx.seed, 10**9 + position, 128)
            count = min(self.pictures.pool.count, 4096)
            rows = np.random.default_rng([7, position]).integers(0, count, 128)
            _, pictures = self.pictures.take(rows)
            yield degrade(pictures, share, 0.5).to(device)
