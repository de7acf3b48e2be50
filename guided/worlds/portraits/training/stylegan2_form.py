"""StyleGAN2 in the form that trains fast, with the way back to the published one.

The network is that of ``guided.nets.stylegan2`` with three changes that none of its values sees.
Filters lose their leading 1, so that maps can run with channels last, where the element-wise work
between convolutions costs a CPU almost nothing.  Maps run in the precision of autocast throughout
(one float32 factor would turn every later map into float32) while colours add up in float32.  The
mapping network keeps its effective weights, so that one learning rate suits all layers, where the
published form stores them a hundredfold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.nets.equalized import GAIN, SLOPE, EqualLinear
from guided.nets.resample import blur, upsample_twice
from guided.nets.stylegan2 import ModulatedConv, StyledConv, StyleGAN2, StyleGAN2Shape, ToRGB


class TrainableStyleGAN2(nn.Module):
    """A StyleGAN2 to be trained: w [B, style] to pictures at its size or half of it.

    The noise inputs stay off (their weights are 0): what a picture shows follows from w alone.
    """

    def __init__(self, shape: StyleGAN2Shape) -> None:
        super().__init__()
        self.shape = shape
        self.net = StyleGAN2(shape)
        for conv in self._convs():
            conv.weight = nn.Parameter(conv.weight.detach()[0])
        for layer in self._mapping():
            layer.weight = nn.Parameter(layer.weight.detach() * layer.pace)
            layer.scale, layer.pace = layer.scale / layer.pace, 1.0
        for name, parameter in self.net.named_parameters():
            if name.endswith("noise.weight"):
                parameter.requires_grad_(False)

    def mapping(self, z: Tensor) -> Tensor:
        """Style vectors w [B, style], float32, of normal vectors z [B, latent]."""
        with torch.autocast(z.device.type, enabled=False):
            return self.net.mapping(z.float())

    def forward(self, w: Tensor, size: int | None = None) -> Tensor:
        """Pictures [B, 3, size, size], float32, about [-1, 1], of style vectors w [B, style].

        ``size`` stops early at a lower level, whose colours are a picture too.
        """
        kind = torch.get_autocast_dtype(w.device.type) if _low(w.device) else w.dtype
        net, w = self.net, w.to(kind)
        start = net.input.input.to(kind).expand(len(w), -1, -1, -1)
        maps = _styled(net.conv1, start.contiguous(memory_format=torch.channels_last), w)
        picture = _colours(net.to_rgb1, maps, w)
        for level, to_rgb in enumerate(net.to_rgbs):
            if size is not None and picture.shape[-1] >= size:
                break
            for layer in net.convs[2 * level : 2 * level + 2]:
                maps = _styled(cast(StyledConv, layer), maps, w)
            kernel = cast(ToRGB, to_rgb).upsample.kernel
            picture = _colours(cast(ToRGB, to_rgb), maps, w) + upsample_twice(picture, kernel)
        return picture

    def export(self) -> dict[str, Tensor]:
        """The state dict of the published form, float32."""
        filters = {f"{name}.weight" for name, _ in self._named_convs()}
        paces = {f"style.{i + 1}" for i, _ in enumerate(self._mapping())}
        state = {}
        for name, tensor in self.net.state_dict().items():
            value = tensor.detach().float()
            if name in filters:
                value = value[None]
            elif name.rpartition(".")[0] in paces:
                value = value / PACE
            state[name] = value.contiguous()
        return state

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Put what ``export`` gave back.

        Raises:
            RuntimeError: names or shapes that do not fit.
        """
        filters = {f"{name}.weight" for name, _ in self._named_convs()}
        own = {}
        for name, tensor in state.items():
            if name in filters:
                own[name] = tensor[0]
            elif name.startswith("style."):
                own[name] = tensor * PACE
            else:
                own[name] = tensor
        self.net.load_state_dict(own)

    def _named_convs(self) -> Iterator[tuple[str, ModulatedConv]]:
        return ((n, m) for n, m in self.net.named_modules() if isinstance(m, ModulatedConv))

    def _convs(self) -> Iterator[ModulatedConv]:
        return (module for _, module in self._named_convs())

    def _mapping(self) -> Iterator[EqualLinear]:
        return (layer for layer in self.net.style if isinstance(layer, EqualLinear))


#: The learning-rate multiplier that the published mapping layers divide their weights by.
PACE = 0.01


def _low(device: torch.device) -> bool:
    return torch.is_autocast_enabled(device.type)


def _styled(layer: StyledConv, maps: Tensor, w: Tensor) -> Tensor:
    """One styled convolution on maps [B, in, H, W], doubled where the layer doubles."""
    conv, kind = layer.conv, maps.dtype
    code = conv.modulation(w)
    weight = conv.weight.to(kind)
    scaled = maps * (code * conv.factor).to(kind)[:, :, None, None]
    if hasattr(conv, "blur"):
        wide = F.conv_transpose2d(scaled, weight.transpose(0, 1), stride=2)
        shaped = blur(wide, conv.blur.kernel)
    else:
        shaped = F.conv2d(scaled, weight, padding=1)
    strength = (_demodulation(conv, code) * GAIN).to(kind)[:, :, None, None]
    bias = (layer.activate.bias * GAIN).to(kind)[None, :, None, None]
    return F.leaky_relu(torch.addcmul(bias, shaped, strength), SLOPE)


def _demodulation(conv: ModulatedConv, code: Tensor) -> Tensor:
    with torch.autocast(code.device.type, enabled=False):
        energy = (conv.weight.float() * conv.factor).square().sum((2, 3))
        return torch.rsqrt(code.float().square() @ energy.T + 1e-8)


def _colours(layer: ToRGB, maps: Tensor, w: Tensor) -> Tensor:
    """The colours [B, 3, H, W] float32 of maps, as one product with channels last."""
    rows, channels, height, width = maps.shape
    code = layer.conv.modulation(w)
    mix = layer.conv.weight[:, :, 0, 0].to(maps.dtype) * (code * layer.conv.factor).to(
        maps.dtype
    ).unsqueeze(1)
    flat = maps.permute(0, 2, 3, 1).reshape(rows, height * width, channels)
    colours = torch.bmm(flat, mix.transpose(1, 2)).view(rows, height, width, 3)
    return colours.permute(0, 3, 1, 2).float() + layer.bias
