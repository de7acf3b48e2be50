"""Pixel-unshuffle backbone of small image networks: 4 x 4 pixels to channels, residual stages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from guided.errors import CorruptWeights
from guided.nets.reader import Residual

SIZE = 128
#: Pixels that are folded into channels, on each axis.
FOLD = 4


def unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class PixelUnshuffleBackbone(nn.Module):
    """Pictures [B, 3, 128, 128] in [-1, 1] to one map a stage, 32, 16, 8 ... pixels wide."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        stages = []
        before = 3 * FOLD**2
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            entry = unit(before, width, 3, 1 if level == 0 else 2)
            stages.append(nn.Sequential(entry, *(Residual(width) for _ in range(count))))
            before = width
        self.unshuffle = nn.PixelUnshuffle(FOLD)
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The map of each stage, [B, widths[i], s, s]."""
        maps = self.unshuffle(images)
        seen: list[Tensor] = []
        for stage in self.stages:
            maps = stage(maps)
            seen.append(maps)
        return seen


def read_backbone(
    state: Mapping[str, Tensor], what: str, prefix: str = "backbone."
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths and blocks of a ``PixelUnshuffleBackbone``, read off the tensors of a state dict.

    Raises:
        CorruptWeights: there is no such backbone in it.
    """
    widths: list[int] = []
    blocks: list[int] = []
    while (entry := f"{prefix}stages.{len(widths)}.0.0.weight") in state:
        within = re.compile(re.escape(f"{prefix}stages.{len(widths)}.") + r"(\d+)\.first\.")
        widths.append(state[entry].shape[0])
        blocks.append(len({m[1] for key in state if (m := within.match(key))}))
    if not widths:
        raise CorruptWeights(
            f"This is not {what}: it lacks {prefix}stages.0.0.0.weight.",
            hint="Check that the file belongs to this kind of model.",
        )
    return tuple(widths), tuple(blocks)
