"""Who it is, in the drawn world: unit embeddings of a portrait's geometry, blind to attributes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from guided.core.device import Device
from guided.core.images import resize_tensor
from guided.core.shapes import expect
from guided.errors import CorruptWeights
from guided.nets.identity import MARK, IdentityNet, build_identity
from guided.nets.pixel_unshuffle import SIZE
from guided.scorers.arcface import ArcFace, load_arcface
from guided.zoo.checkpoint import read_checkpoint


class PortraitIdentity:
    """Unit embeddings [B, width] of drawn portraits [B, 3, H, W] in [0, 1]."""

    def __init__(
        self, net: IdentityNet, *, name: str = "identity", device: Device | None = None
    ) -> None:
        self.name = name
        self.device = device or Device()
        self.net = self.device.prepare(net)

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [B, width], float32; differentiable.

        Raises:
            ShapeError: another shape.
        """
        expect(images, "b 3 h w", "images")
        sized = resize_tensor(images.to(self.device.torch), (SIZE, SIZE))
        found: Tensor = self.net(sized.to(self.device.dtype))
        return found


def load_identity(path: str | Path, device: Device | None = None) -> PortraitIdentity | ArcFace:
    """The embedder in a file: one of drawn portraits, or a face network (``model_ir_se50.pth``).

    Raises:
        MissingWeights: no such file.
        CorruptWeights: another model; the message lists the keys.
    """
    content = read_checkpoint(path)
    if content.get(MARK) is not None:
        net = build_identity(content.tensors)
        return PortraitIdentity(net, name=Path(path).stem, device=device)
    if content.part(("input_layer.0.weight",), ("", "state_dict.")):
        return load_arcface(path, device)
    raise CorruptWeights(
        f"{path} holds no identity network: there is no {MARK} and no input_layer.0.weight; "
        f"it holds {content.summary()}.",
        hint="Expected is an embedder of drawn portraits, or IR-SE-50.",
    )
