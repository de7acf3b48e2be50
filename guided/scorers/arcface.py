"""Who it is: ArcFace embeddings of aligned faces, from ``model_ir_se50.pth``."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from guided.core.device import Device
from guided.core.shapes import expect
from guided.errors import CorruptWeights
from guided.nets.irse50 import IRSE50, build_irse50, crop_face
from guided.zoo.checkpoint import read_checkpoint


class ArcFace:
    """Unit embeddings [B, width] of FFHQ-aligned face pictures [B, 3, H, W] in [0, 1].

    The crop is fixed, so the face must be where FFHQ's alignment puts it.
    """

    def __init__(self, net: IRSE50, *, name: str = "ir_se50", device: Device | None = None) -> None:
        self.name = name
        self.device = device or Device()
        self.net = self.device.prepare(net)

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [B, width], float32; differentiable.

        Raises:
            ShapeError: another shape.
        """
        expect(images, "b 3 h w", "images")
        faces = crop_face(2 * images.to(self.device.torch) - 1)
        found: Tensor = self.net(faces.to(self.device.dtype))
        return found.float()


def load_arcface(path: str | Path, device: Device | None = None) -> ArcFace:
    """The face network in a file such as ``model_ir_se50.pth``.

    Raises:
        CorruptWeights: another model; the message lists the keys.
    """
    content = read_checkpoint(path)
    state = content.part(("input_layer.0.weight",), ("", "state_dict."))
    if not state:
        raise CorruptWeights(
            f"{path} holds no IR-SE-50 face network: there is no input_layer.0.weight; "
            f"it holds {content.summary()}."
        )
    return ArcFace(build_irse50(state), name=Path(path).stem, device=device)
