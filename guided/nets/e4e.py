"""The encoders e4e and pSp: a face picture -> the W+ code that redraws it.

One network under the names of the public files, read in two ways.  e4e predicts one style for all
rows and an offset for each further row; pSp predicts every row by itself.
Source: Tov et al. 2021 (arXiv 2102.02766), section 4; Richardson et al. 2021 (arXiv 2008.00951).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.shapes import expect
from guided.errors import CorruptWeights
from guided.nets.equalized import EqualLinear
from guided.nets.irse50 import read_widths, residual_body, stem
from guided.nets.loading import load_exactly

Reading = Literal["e4e", "psp"]
COARSE, MIDDLE = 3, 7
_TAPS = (6, 20, 23)


class StyleHead(nn.Module):
    """A map [B, in, side, side] to one style [B, out], by halving it to one pixel."""

    def __init__(self, inputs: int, outputs: int, halvings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(halvings):
            layers += [nn.Conv2d(inputs if i == 0 else outputs, outputs, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(outputs, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """The style [B, out]."""
        style: Tensor = self.linear(self.convs(maps).flatten(1))
        return style


class StyleEncoder(nn.Module):
    """Pictures [B, 3, 256, 256] in [-1, 1] -> W+ codes [B, rows, style] relative to the mean.

    Rows 0-2 look at the 16 px features, 3-6 at 32 px, the rest at 64 px.
    """

    side = 256

    def __init__(
        self, widths: tuple[int, int, int, int], rows: int, style: int, reading: Reading = "e4e"
    ) -> None:
        super().__init__()
        self.reading = reading
        self.rows = rows
        self.input_layer = stem(widths[0])
        self.body = residual_body(widths)
        self.styles = nn.ModuleList(
            StyleHead(widths[3], style, 4 if row < COARSE else 5 if row < MIDDLE else 6)
            for row in range(rows)
        )
        self.latlayer1 = nn.Conv2d(widths[2], widths[3], 1)
        self.latlayer2 = nn.Conv2d(widths[1], widths[3], 1)

    def forward(self, images: Tensor) -> Tensor:
        """The code [B, rows, style], without the mean style."""
        expect(images, "b 3 256 256", "images")
        coarse, middle, fine = self.pyramid(images)
        heads = [
            head(coarse if row < COARSE else middle if row < MIDDLE else fine)
            for row, head in enumerate(self.styles)
        ]
        if self.reading == "e4e":
            heads[1:] = [heads[0] + offset for offset in heads[1:]]
        return torch.stack(heads, dim=1)

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The features at 16, 32 and 64 px, each [B, widest, side, side]."""
        taps: list[Tensor] = []
        maps = self.input_layer(images)
        for i, block in enumerate(self.body):
            maps = block(maps)
            if i in _TAPS:
                taps.append(maps)
        middle = _doubled(taps[2]) + self.latlayer1(taps[1])
        fine = _doubled(middle) + self.latlayer2(taps[0])
        return taps[2], middle, fine


def _doubled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)


def build_encoder(state: Mapping[str, Tensor], reading: Reading = "e4e") -> StyleEncoder:
    """The encoder of the ``encoder.`` part of an e4e or pSp checkpoint; in evaluation mode.

    Raises:
        CorruptWeights: another model's weights; the message lists the keys.
    """
    what = "an e4e or pSp encoder"
    widths = read_widths(state, what)
    rows = sum(1 for key in state if re.fullmatch(r"styles\.\d+\.linear\.weight", key))
    if rows == 0:
        raise CorruptWeights(f"This is not {what}: it lacks styles.0.linear.weight.")
    net = StyleEncoder(widths, rows, state["styles.0.linear.weight"].shape[0], reading)
    load_exactly(net, state, what, optional=r"num_batches_tracked$")
    return net.eval()
