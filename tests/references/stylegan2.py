"""StyleCLIP's step as it is commonly computed, written from its description: the yardstick.

Weights are modulated for each sample and run as grouped convolutions, blurs fold the channels into
the batch, the picture is repeated 7 times before it is pooled, the original's features are
computed again at every step, and every network keeps its weight gradients.  It runs on the
weights of our own nets, so both ways must give the same picture.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.nets.stylegan2 import StyleGAN2


def fold_blur(maps: Tensor, kernel: Tensor, pad: tuple[int, int], up: int = 1) -> Tensor:
    """Zero insertion by ``up``, padding, and the filter, on channels folded into the batch."""
    rows, channels, height, width = maps.shape
    folded = maps.reshape(-1, 1, height, width)
    if up > 1:
        spread = folded.view(-1, 1, height, 1, width, 1)
        spread = F.pad(spread, [0, up - 1, 0, 0, 0, up - 1])
        folded = spread.reshape(-1, 1, height * up, width * up)
    folded = F.pad(folded, [pad[0], pad[1], pad[0], pad[1]])
    out = F.conv2d(folded, kernel.flip((0, 1))[None, None])
    return out.view(rows, channels, out.shape[2], out.shape[3])


def modulated(conv: Any, maps: Tensor, row: Tensor, *, demodulate: bool) -> Tensor:
    """A convolution with its weights scaled for each sample; ``row`` is the sample's W row."""
    rows, inputs, height, width = maps.shape
    outputs, side = conv.weight.shape[1], conv.weight.shape[3]
    weight = conv.factor * conv.weight * conv.modulation(row).view(rows, 1, inputs, 1, 1)
    if demodulate:
        norm = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)
        weight = weight * norm.view(rows, outputs, 1, 1, 1)
    grouped = maps.reshape(1, rows * inputs, height, width)
    if hasattr(conv, "blur"):
        turned = weight.transpose(1, 2).reshape(rows * inputs, outputs, side, side)
        out = F.conv_transpose2d(grouped, turned, stride=2, groups=rows)
        return fold_blur(out.view(rows, outputs, *out.shape[2:]), conv.blur.kernel, (1, 1))
    turned = weight.view(rows * outputs, inputs, side, side)
    out = F.conv2d(grouped, turned, padding=side // 2, groups=rows)
    return out.view(rows, outputs, *out.shape[2:])


def _styled(layer: Any, maps: Tensor, row: Tensor, noise: Tensor) -> Tensor:
    out = modulated(layer.conv, maps, row, demodulate=True)
    out = out + layer.noise.weight * noise
    return F.leaky_relu(out + layer.activate.bias.view(1, -1, 1, 1), 0.2) * 2**0.5


def _coloured(layer: Any, maps: Tensor, row: Tensor, below: Tensor | None) -> Tensor:
    out = modulated(layer.conv, maps, row, demodulate=False) + layer.bias
    return out if below is None else out + fold_blur(below, layer.upsample.kernel, (2, 1), up=2)


def render(net: StyleGAN2, w_plus: Tensor) -> Tensor:
    """The picture of a W+ code with the stored noise, about [-1, 1]."""
    noise = net.stored_noise
    maps = net.input.input.repeat(len(w_plus), 1, 1, 1)
    maps = _styled(net.conv1, maps, w_plus[:, 0], noise[0])
    picture = _coloured(net.to_rgb1, maps, w_plus[:, 1], None)
    for level, colour in enumerate(net.to_rgbs):
        row = 2 * level + 1
        maps = _styled(net.convs[row - 1], maps, w_plus[:, row], noise[row])
        maps = _styled(net.convs[row], maps, w_plus[:, row + 1], noise[row + 1])
        picture = _coloured(colour, maps, w_plus[:, row + 2], picture)
    return picture


def resize(images: Tensor) -> Tensor:
    """To 224 pixels: every pixel 7 times, then the mean over size / 32."""
    return F.avg_pool2d(F.interpolate(images, scale_factor=7), images.shape[-1] // 32)
