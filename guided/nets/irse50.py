"""IR-SE-50, the face recognition network of ArcFace, under the names of ``model_ir_se50.pth``.

Source: Deng et al. 2019 (ArcFace), section 2.2; Hu et al. 2018 (squeeze and excitation).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.shapes import expect
from guided.errors import CorruptWeights
from guided.nets.loading import load_exactly

BLOCKS = (3, 4, 14, 3)
STAGE_ENDS = tuple(sum(BLOCKS[: i + 1]) - 1 for i in range(len(BLOCKS)))
SQUEEZE = 16
FACE = 112


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """The scaled maps."""
        gate = self.fc2(F.relu(self.fc1(maps.mean((2, 3), keepdim=True))))
        return maps * torch.sigmoid(gate)


class Block(nn.Module):
    """BN, 3x3, PReLU, 3x3 with stride, BN, gate; beside it a pooled or projected shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcite(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        out: Tensor = self.res_layer(maps) + self.shortcut_layer(maps)
        return out


def stem(width: int) -> nn.Sequential:
    """The first layer: 3x3 convolution, BN, PReLU."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
    )


def residual_body(widths: tuple[int, int, int, int]) -> nn.Sequential:
    """The 24 blocks; each of the four stages halves the map at its first block."""
    blocks: list[Block] = []
    inputs = widths[0]
    for width, count in zip(widths, BLOCKS, strict=True):
        for i in range(count):
            blocks.append(Block(inputs, width, 2 if i == 0 else 1))
            inputs = width
    return nn.Sequential(*blocks)


def read_widths(state: Mapping[str, Tensor], what: str) -> tuple[int, int, int, int]:
    """The width of each stage, read off the tensors' shapes.

    Raises:
        CorruptWeights: keys that are looked for and absent.
    """
    keys = [f"body.{end}.res_layer.3.weight" for end in STAGE_ENDS]
    missing = [key for key in ("input_layer.0.weight", *keys) if key not in state]
    if missing:
        raise CorruptWeights(f"This is no {what}: it lacks {', '.join(missing)}.")
    first, second, third, fourth = (state[key].shape[0] for key in keys)
    return first, second, third, fourth


class IRSE50(nn.Module):
    """Face embedding: [B, 3, 112, 112] in [-1, 1] -> [B, D] of unit length."""

    def __init__(self, widths: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        self.input_layer = stem(widths[0])
        self.body = residual_body(widths)
        side = FACE // 16
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(widths[-1] * side * side, width),
            nn.BatchNorm1d(width),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """Unit vectors [B, D]."""
        expect(faces, f"b 3 {FACE} {FACE}", "faces")
        return F.normalize(self.output_layer(self.body(self.input_layer(faces))), dim=1)


def build_irse50(state: Mapping[str, Tensor]) -> IRSE50:
    """The network of a ``model_ir_se50.pth`` state dict, of any widths; in evaluation mode.

    Raises:
        CorruptWeights: another model's weights; the message lists the keys.
    """
    what = "an IR-SE-50 face network"
    widths = read_widths(state, what)
    if "output_layer.3.weight" not in state:
        raise CorruptWeights(f"This is not {what}: it lacks output_layer.3.weight.")
    net = IRSE50(widths, state["output_layer.3.weight"].shape[0])
    load_exactly(net, state, what, optional=r"num_batches_tracked$")
    return net.eval()


def crop_face(images: Tensor) -> Tensor:
    """The face [B, C, 112, 112] of FFHQ-aligned pictures [B, C, H, W]: mean pool to 256, cut, pool.

    Source: the identity loss of StyleCLIP (Patashnik et al. 2021), section 4.
    """
    if images.shape[2] != 256:
        images = F.adaptive_avg_pool2d(images, 256)
    return F.adaptive_avg_pool2d(images[:, :, 35:223, 32:220], FACE)
