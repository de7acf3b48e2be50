"""A small encoder of the e4e kind: a picture -> one style for all rows, and an offset for each.

For small generators and pictures of 128 pixels; some hundred times less work than e4e's own.
Source: Tov et al. 2021 (e4e, arXiv 2102.02766), section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.shapes import expect
from guided.errors import CorruptWeights, ShapeError
from guided.nets.e4e import COARSE, MIDDLE
from guided.nets.loading import load_exactly
from guided.nets.pixel_unshuffle import SIZE, PixelUnshuffleBackbone, read_backbone, unit

WHAT = "a small style encoder"
#: An entry that only these encoders' files have.
MARK = "base.weight"
_SIDE = 8


class SpatialHead(nn.Module):
    """A map [B, in, side, side] to features [B, hidden], its places kept apart."""

    def __init__(self, inputs: int, head: int, hidden: int, halvings: int) -> None:
        super().__init__()
        layers = [unit(inputs if i == 0 else head, head, 3, 2) for i in range(halvings)]
        self.squeeze = nn.Sequential(*(layers or [unit(inputs, head, 1)]))
        self.hidden = nn.Linear(head * _SIDE * _SIDE, hidden)

    def forward(self, maps: Tensor) -> Tensor:
        """Features [B, hidden], not negative."""
        return F.relu(self.hidden(self.squeeze(maps).flatten(1)))


class FoldedStyleEncoder(nn.Module):
    """Pictures [B, 3, 128, 128] in [-1, 1] -> W+ codes [B, rows, style] relative to the mean.

    The common style comes from features of all three scales; the offsets of rows 0-2 from those at
    8 px, 3-6 at 16 px, the rest at 32 px.  The first row's offset is zero, as in e4e.
    """

    side = SIZE

    def __init__(
        self,
        rows: int,
        style: int,
        widths: tuple[int, ...] = (48, 64, 96),
        blocks: tuple[int, ...] = (1, 1, 1),
        head: int = 16,
        hidden: int = 160,
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ShapeError(f"A small style encoder has three stages, not {len(widths)}.")
        self.rows = rows
        self.backbone = PixelUnshuffleBackbone(widths, blocks)
        self.heads = nn.ModuleList(
            SpatialHead(width, head, hidden, level) for level, width in enumerate(widths[::-1])
        )
        self.base = nn.Linear(3 * hidden, style)
        self.offsets = nn.ModuleList(nn.Linear(hidden, style) for _ in range(rows - 1))
        for layer in self.offsets:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The common style [B, style] and the offsets [B, rows - 1, style] of the other rows."""
        expect(images, f"b 3 {SIZE} {SIZE}", "images")
        maps = self.backbone(images)[::-1]
        seen = [read(maps[level]) for level, read in enumerate(self.heads)]
        base: Tensor = self.base(torch.cat(seen, dim=1))
        found = []
        for row, layer in enumerate(self.offsets, start=1):
            level = 0 if row < COARSE else 1 if row < MIDDLE else 2
            found.append(layer(seen[level]))
        return base, torch.stack(found, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """The code [B, rows, style], without the mean style."""
        base, offsets = self.parts(images)
        return base[:, None] + F.pad(offsets, (0, 0, 1, 0))


def build_folded_encoder(state: Mapping[str, Tensor]) -> FoldedStyleEncoder:
    """The encoder of a state dict, of any widths; in evaluation mode.

    Raises:
        CorruptWeights: another model's weights; the message lists the keys.
    """
    widths, blocks = read_backbone(state, WHAT)
    wanted = (MARK, "heads.0.squeeze.0.0.weight", "heads.0.hidden.weight")
    if missing := [key for key in wanted if key not in state]:
        raise CorruptWeights(f"This is not {WHAT}: it lacks {', '.join(missing)}.")
    style, head, hidden = (state[key].shape[0] for key in wanted)
    rows = 1 + sum(1 for key in state if re.fullmatch(r"offsets\.\d+\.weight", key))
    net = FoldedStyleEncoder(rows, style, widths, blocks, head, hidden)
    load_exactly(net, state, WHAT, optional=r"num_batches_tracked$")
    return net.eval()
