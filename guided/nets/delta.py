"""A mapper from CLIP differences to latent differences: one network for every prompt.

It is trained on differences between pictures, without any text, and used with differences between
texts, since both lie near each other in CLIP's space.
Source: Lyu et al. 2023 (DeltaEdit, arXiv 2303.06285), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.shapes import expect
from guided.errors import CorruptWeights
from guided.nets.loading import load_exactly

WHAT = "a delta mapper"
#: An entry that only these mappers' files have.
MARK = "condition.0.weight"


class DeltaNet(nn.Module):
    """W+ codes [B, rows, style], picture features and a direction, both [B, D], to a change of W+.

    The rows of a code are treated alike but for a learnt vector of their own; ``embed`` is D.
    ``average``
    [rows, style] and ``spread`` are the centre and the size of the generator's styles.
    """

    average: Tensor
    spread: Tensor

    def __init__(
        self, rows: int, style: int, embed: int, *, middle: int = 192, hidden: int = 256
    ) -> None:
        super().__init__()
        self.rows, self.embed = rows, embed
        self.condition = nn.Sequential(
            nn.Linear(2 * embed, middle), nn.GELU(), nn.Linear(middle, middle), nn.GELU()
        )
        self.place = nn.Parameter(0.1 * torch.randn(rows, middle))
        self.change = nn.Sequential(
            nn.Linear(style + middle, hidden), nn.GELU(),
            nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, style),
        )  # fmt: skip
        self.register_buffer("average", torch.zeros(rows, style))
        self.register_buffer("spread", torch.tensor(1.0))

    def forward(self, codes: Tensor, seen: Tensor, direction: Tensor) -> Tensor:
        """The change [B, rows, style] of codes whose pictures have unit features ``seen``.

        ``direction`` are unit vectors: where the features should go.
        """
        style, embed = self.average.shape[1], seen.shape[1]
        rows = expect(codes, f"b {self.rows} {style}", "codes")["b"]
        expect(direction, f"{rows} {embed}", "direction")
        condition = self.condition(torch.cat([seen, direction], dim=1))
        placed = F.gelu(condition[:, None] + self.place)
        inner = (codes - self.average) / self.spread
        change: Tensor = self.spread * self.change(torch.cat([inner, placed], dim=2))
        return change


def build_delta(state: Mapping[str, Tensor]) -> DeltaNet:
    """The mapper of a state dict, of any widths; in evaluation mode.

    Raises:
        CorruptWeights: another model's weights; the message lists the keys.
    """
    wanted = (MARK, "change.0.weight", "average")
    if missing := [key for key in wanted if key not in state]:
        raise CorruptWeights(f"This is not {WHAT}: it lacks {', '.join(missing)}.")
    middle, both = state[MARK].shape
    rows, style = state["average"].shape
    hidden = state["change.0.weight"].shape[0]
    net = DeltaNet(rows, style, both // 2, middle=middle, hidden=hidden)
    load_exactly(net, state, WHAT)
    return net.eval()
