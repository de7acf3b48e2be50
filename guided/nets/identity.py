"""A small network that tells who a drawn portrait shows, whatever the person wears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.shapes import expect
from guided.errors import CorruptWeights
from guided.nets.loading import load_exactly
from guided.nets.pixel_unshuffle import FOLD, SIZE, PixelUnshuffleBackbone, read_backbone, unit

WHAT = "an identity network"
#: An entry that only these networks' files have.
MARK = "embedding.weight"


class IdentityNet(nn.Module):
    """Pictures [B, 3, 128, 128] in [0, 1] -> unit vectors [B, width].

    The last map is flattened, not averaged: a person is where the parts of the face are.
    """

    def __init__(
        self,
        widths: Sequence[int] = (48, 64, 96),
        blocks: Sequence[int] = (1, 1, 1),
        head: int = 16,
        hidden: int = 128,
        width: int = 32,
    ) -> None:
        super().__init__()
        self.backbone = PixelUnshuffleBackbone(widths, blocks)
        side = SIZE // FOLD >> (len(widths) - 1)
        self.head = unit(widths[-1], head, 1)
        self.hidden = nn.Linear(head * side * side, hidden)
        self.embedding = nn.Linear(hidden, width)

    def code(self, images: Tensor) -> Tensor:
        """The vectors [B, width] before they are brought to unit length."""
        flat = self.head(self.backbone(2 * images - 1)[-1]).flatten(1)
        found: Tensor = self.embedding(F.relu(self.hidden(flat)))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors [B, width], float32."""
        expect(images, f"b 3 {SIZE} {SIZE}", "images")
        return F.normalize(self.code(images).float(), dim=1)


def build_identity(state: Mapping[str, Tensor]) -> IdentityNet:
    """The network of a state dict, of any widths; in evaluation mode.

    Raises:
        CorruptWeights: another model's weights; the message lists the keys.
    """
    widths, blocks = read_backbone(state, WHAT)
    wanted = ("head.0.weight", "hidden.weight", MARK)
    if missing := [key for key in wanted if key not in state]:
        raise CorruptWeights(f"This is not {WHAT}: it lacks {', '.join(missing)}.")
    head, hidden, width = (state[key].shape[0] for key in wanted)
    net = IdentityNet(widths, blocks, head, hidden, width)
    load_exactly(net, state, WHAT, optional=r"num_batches_tracked$")
    return net.eval()
