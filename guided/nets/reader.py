"""A small convolutional classifier that reads every attribute of a drawn portrait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SIZE = 128
#: A distance that no picture has: the limit before it is learnt.
FAR = 1e4


def _unit(ins: int, outs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _unit(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, width, H, W] to the same shape."""
        return torch.relu(x + self.second(self.first(x)))


class ReaderNet(nn.Module):
    """Pictures [B, 3, 128, 128] in [0, 1] to logits [B, sum(classes)], one softmax per attribute.

    Pixels are folded four by four into channels, three stages follow (32, 16 and 8 pixels wide),
    and the last map is flattened, not averaged: where something is seen tells eyes from mouth.
    The buffers ``domain_*`` describe the pooled features of training pictures, to tell others.
    """

    domain_mean: Tensor
    domain_whiten: Tensor
    domain_limit: Tensor

    def __init__(
        self,
        classes: Sequence[int],
        widths: Sequence[int] = (64, 96, 128),
        blocks: Sequence[int] = (1, 1, 1),
        head: int = 16,
        features: int = 256,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.widths = tuple(widths)
        stages = []
        before = 48
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            entry = _unit(before, width, 3, 1 if level == 0 else 2)
            stages.append(nn.Sequential(entry, *(Residual(width) for _ in range(count))))
            before = width
        self.fold = nn.PixelUnshuffle(4)
        self.stages = nn.ModuleList(stages)
        side = SIZE // 4 >> (len(self.widths) - 1)
        self.head = _unit(before, head, 1)
        self.hidden = nn.Linear(head * side * side, features)
        self.answer = nn.Linear(features, sum(self.classes))
        pooled = sum(self.widths)
        self.register_buffer("domain_mean", torch.zeros(pooled))
        self.register_buffer("domain_whiten", torch.eye(pooled))
        self.register_buffer("domain_limit", torch.tensor(FAR))

    def maps(self, images: Tensor) -> list[Tensor]:
        """The map of each stage, [B, widths[i], s, s]."""
        x = self.fold(images * 2 - 1)
        seen = []
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        return seen

    def penultimate(self, last: Tensor) -> Tensor:
        """Features [B, F], not negative, of the last stage's map."""
        return torch.relu(self.hidden(self.head(last).flatten(1)))

    def features(self, images: Tensor) -> Tensor:
        """Features [B, F] of pictures, the layer before the answers."""
        return self.penultimate(self.maps(images)[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, sum(classes)] of pictures [B, 3, 128, 128] in [0, 1]."""
        logits: Tensor = self.answer(self.features(images))
        return logits

    def split(self, logits: Tensor) -> list[Tensor]:
        """The logits [B, n] of each attribute."""
        return list(torch.split(logits, list(self.classes), dim=1))

    def pooled(self, maps: Sequence[Tensor]) -> Tensor:
        """Each channel's mean over each stage's map, [B, sum(widths)]: texture, not place."""
        return torch.cat([x.mean((2, 3)) for x in maps], dim=1)

    def distance(self, maps: Sequence[Tensor]) -> Tensor:
        """How far [B] pooled features lie from those of training pictures; 1 is the typical one.

        The Mahalanobis distance over the square root of the number of features.
        """
        centred = (self.pooled(maps) - self.domain_mean) @ self.domain_whiten
        distances: Tensor = centred.square().mean(1).sqrt()
        return distances
