"""Inversion by an encoder: a face picture to the W+ code that redraws it: e4e, pSp or our own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from guided.core.device import Device
from guided.core.images import resize_tensor
from guided.core.protocols import Latent
from guided.core.shapes import expect
from guided.errors import CorruptWeights, ShapeError
from guided.nets.e4e import Reading, StyleEncoder, build_encoder
from guided.nets.folded_encoder import MARK, FoldedStyleEncoder, build_folded_encoder
from guided.zoo.checkpoint import read_checkpoint

_MARKS = ("input_layer.0.weight", MARK)


class StyleInverter:
    """Pictures [B, 3, H, W] in [0, 1] -> ``{"w": [B, rows, style]}``.

    ``average`` [style] or [rows, style] is added to what the network predicts.
    """

    def __init__(
        self,
        net: StyleEncoder | FoldedStyleEncoder,
        average: Tensor,
        *,
        name: str = "e4e",
        device: Device | None = None,
    ) -> None:
        self.name = name
        self.device = device or Device()
        self.net = self.device.prepare(net)
        self.average = average.to(self.device.torch).float()

    @torch.no_grad()
    def invert(self, images: Tensor) -> Latent:
        """The W+ code of each picture, in one pass.

        Raises:
            ShapeError: pictures of another shape.
        """
        expect(images, "b 3 h w", "images")
        side = self.net.side
        small = resize_tensor(images.to(self.device.torch), (side, side))
        codes = self.net((2 * small - 1).to(self.device.dtype)).float()
        return {"w": codes + self.average}


def load_inverter(
    path: str | Path,
    average: Tensor,
    device: Device | None = None,
    *,
    reading: Reading = "e4e",
) -> StyleInverter:
    """The inverter in an e4e or pSp checkpoint (``encoder.`` entries), or a small one of ours.

    ``average`` [style] is the generator's mean style, used when the file holds none.

    Raises:
        CorruptWeights: no such encoder inside; the message lists the keys.
        ShapeError: an encoder of another style size than the generator's.
    """
    content = read_checkpoint(path)
    prefixes = ("state_dict.encoder.", "encoder.", "")
    state = content.part(_MARKS, prefixes)
    if not state:
        raise CorruptWeights(
            f"{path} holds no e4e or pSp encoder: there is no encoder.input_layer.0.weight; "
            f"it holds {content.summary()}."
        )
    small = MARK in state
    net = build_folded_encoder(state) if small else build_encoder(state, reading)
    own = content.get("latent_avg")
    centre = average if own is None else own
    style = state[MARK if small else "styles.0.linear.weight"].shape[0]
    if centre.shape[-1] != style:
        raise ShapeError(
            f"The encoder in {path} predicts styles of {style} numbers, but the mean style has "
            f"{centre.shape[-1]}.",
            hint="Encoder and generator must belong together.",
        )
    return StyleInverter(net, centre, name=Path(path).stem, device=device)
