"""StyleGAN2, in the form that is fast on any device and exact.

The state-dict names are those of the public ``g_ema`` checkpoints.  Inside, a modulated
convolution scales the activations instead of the weights,

    y = demodulation * conv(x * style, weight),  demodulation = 1 / sqrt(style^2 @ W2 + eps),

with W2 the kernel's squares summed over its taps: the same numbers up to rounding, without a
weight copy for each sample and without grouped convolutions, so a batch of edits shares every
weight.  Source: Karras et al. 2020 (arXiv 1912.04958), sections 2.2 and 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.seeds import Seeds
from guided.core.shapes import expect
from guided.errors import ShapeError
from guided.nets.equalized import GAIN, SLOPE, EqualLinear, mapping_network
from guided.nets.resample import blur, fir_kernel, upsample_twice

Noise = Sequence[Tensor | None]
LARGEST = 16 << 20
"""Bytes of a map beyond which a batch goes through a CPU in parts."""


@dataclass(frozen=True)
class StyleGAN2Shape:
    """The sizes of a generator: ``channels`` are the widths at 4, 8, ... ``size`` pixels."""

    size: int
    style: int
    latent: int
    depth: int
    channels: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many rows a W+ code has: 2 log2(size) - 2."""
        return 2 * int(math.log2(self.size)) - 2

    @property
    def noise_sizes(self) -> tuple[int, ...]:
        """The side of each noise map: 4, 8, 8, 16, 16, ..."""
        sizes = [4 * 2**level for level in range(len(self.channels))]
        return tuple(sizes[(i + 1) // 2] for i in range(2 * len(sizes) - 1))


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style and output is normalised.

    ``weight`` is [1, out, in, k, k]; ``modulation`` maps a W row [B, style] to a style code
    [B, in]; with ``upsample`` 2 the map doubles and is blurred by ``blur.kernel``.
    """

    weight: nn.Parameter

    def __init__(self, inputs: int, outputs: int, side: int, style: int, *, scale: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(1, outputs, inputs, side, side)))
        self.modulation = EqualLinear(style, inputs, bias=1.0)
        self.factor = 1 / math.sqrt(inputs * side * side)
        if scale == 2:
            self.blur = _Kernel()
        self._squares: tuple[tuple[object, ...], Tensor] | None = None

    def demodulation(self, code: Tensor) -> Tensor:
        """The factors [B, out] that give each output channel unit variance."""
        precise = code.to(torch.promote_types(code.dtype, torch.float32))
        return torch.rsqrt(precise.square() @ self._energy().T + 1e-8).to(code.dtype)

    def _energy(self) -> Tensor:
        """Squares of the scaled weights summed over the taps [out, in]; kept while frozen."""
        weight = self.weight
        if weight.requires_grad:
            return self._energy_now()
        key = (weight._version, weight.data_ptr(), weight.dtype, weight.device)
        if self._squares is None or self._squares[0] != key:
            with torch.no_grad():
                self._squares = (key, self._energy_now())
        return self._squares[1]

    def _energy_now(self) -> Tensor:
        precise = torch.promote_types(self.weight.dtype, torch.float32)
        return (self.weight[0].to(precise) * self.factor).square().sum((2, 3))

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        """Maps [B, in, H, W] and codes [B, in] -> [B, out, H', W'], not yet demodulated."""
        scaled = maps * (code * self.factor)[:, :, None, None]
        if hasattr(self, "blur"):
            wide = F.conv_transpose2d(scaled, self.weight[0].transpose(0, 1), stride=2)
            return blur(wide, self.blur.kernel)
        return F.conv2d(scaled, self.weight[0], padding=self.weight.shape[-1] // 2)


class _Kernel(nn.Module):
    """Holds the filter taps under the name the public files use."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel())


class _NoiseWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class _Bias(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style: int, *, scale: int = 1) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style, scale=scale)
        self.noise = _NoiseWeight()
        self.activate = _Bias(outputs)

    def forward(self, maps: Tensor, code: Tensor, noise: Tensor | None) -> Tensor:
        """Maps and a style code [B, in] -> activated maps; ``noise`` [1 or B, 1, H, W]."""
        # The gain of the activation goes into its small factors: leaky ReLU is homogeneous.
        strength = (self.conv.demodulation(code) * GAIN)[:, :, None, None]
        bias = (self.activate.bias * GAIN)[None, :, None, None]
        shaped = torch.addcmul(bias, self.conv(maps, code), strength)
        if noise is not None:
            shaped = shaped + (self.noise.weight * GAIN).to(shaped.dtype) * noise.to(shaped.dtype)
        return F.leaky_relu(shaped, SLOPE)


class ToRGB(nn.Module):
    """Maps to three colours, added to the doubled picture of the level below."""

    def __init__(self, inputs: int, style: int, *, first: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, style)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if not first:
            self.upsample = _Kernel()

    def forward(self, maps: Tensor, code: Tensor, below: Tensor | None) -> Tensor:
        """Maps [B, in, H, W], code [B, in] and the half-size picture below -> [B, 3, H, W]."""
        rows, _, height, width = maps.shape
        mix = self.conv.weight[:, :, :, 0, 0] * (code * self.conv.factor)[:, None, :]
        colours = torch.bmm(mix, maps.flatten(2)).view(rows, 3, height, width) + self.bias
        if below is None:
            return colours
        return colours + upsample_twice(below, self.upsample.kernel)


class _Constant(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(nn.init.normal_(torch.empty(1, channels, 4, 4)))


class StyleGAN2(nn.Module):
    """z -> w -> W+ -> StyleSpace codes -> picture [B, 3, size, size], about [-1, 1], not clamped.

    Every stage can be entered: ``mapping`` [B, latent] -> [B, style]; ``spread`` -> W+
    [B, rows, style]; ``codes`` -> the list of StyleSpace codes in generator order (conv1, to_rgb1,
    then convolution, convolution, to_rgb for each doubling), each [B, channels], which
    ``synthesis`` draws.
    """

    def __init__(self, shape: StyleGAN2Shape) -> None:
        super().__init__()
        self.shape = shape
        self.style = mapping_network(shape.latent, shape.style, shape.depth)
        first = shape.channels[0]
        self.input = _Constant(first)
        self.conv1 = StyledConv(first, first, shape.style)
        self.to_rgb1 = ToRGB(first, shape.style, first=True)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for inputs, outputs in pairwise(shape.channels):
            self.convs.append(StyledConv(inputs, outputs, shape.style, scale=2))
            self.convs.append(StyledConv(outputs, outputs, shape.style))
            self.to_rgbs.append(ToRGB(outputs, shape.style))
        self.noises = nn.Module()
        for i, side in enumerate(shape.noise_sizes):
            self.noises.register_buffer(f"noise_{i}", fixed_noise(i, side))

    @property
    def stored_noise(self) -> list[Tensor]:
        """The fixed noise maps [1, 1, r, r] a checkpoint carries."""
        return [self.noises.get_buffer(f"noise_{i}") for i in range(len(self.shape.noise_sizes))]

    def mapping(self, z: Tensor) -> Tensor:
        """Style vectors w [B, style] of normal vectors z [B, latent]."""
        expect(z, f"b {self.shape.latent}", "z")
        styles: Tensor = self.style(z)
        return styles

    def spread(self, w: Tensor) -> Tensor:
        """The W+ code [B, rows, style] that repeats w [B, style] in every row."""
        expect(w, f"b {self.shape.style}", "w")
        return w[:, None].expand(-1, self.shape.rows, -1)

    def codes(self, w_plus: Tensor) -> list[Tensor]:
        """The StyleSpace codes of a W+ code [B, rows, style], before any 1/sqrt(fan-in)."""
        expect(w_plus, f"b {self.shape.rows} {self.shape.style}", "w_plus")
        found = [
            self.conv1.conv.modulation(w_plus[:, 0]),
            self.to_rgb1.conv.modulation(w_plus[:, 1]),
        ]
        for level, to_rgb in enumerate(self.to_rgbs):
            first, second = self.convs[2 * level], self.convs[2 * level + 1]
            for offset, layer in enumerate((first, second, to_rgb), start=2 * level + 1):
                found.append(layer.conv.modulation(w_plus[:, offset]))  # type: ignore[union-attr, operator]
        return found

    def synthesis(self, codes: Sequence[Tensor], noise: Noise | None = None) -> Tensor:
        """The picture of StyleSpace codes; ``noise`` None takes the stored maps.

        ``noise`` lists one [1 or B, 1, r, r] (or None for no noise) for each convolution.

        Raises:
            ShapeError: another number of codes or noise maps.
        """
        wanted = 3 * len(self.shape.channels) - 1
        maps_of_noise = self.stored_noise if noise is None else list(noise)
        if len(codes) != wanted or len(maps_of_noise) != len(self.shape.noise_sizes):
            raise ShapeError(
                f"A {self.shape.size} px generator takes {wanted} codes and "
                f"{len(self.shape.noise_sizes)} noise maps, not {len(codes)} and "
                f"{len(maps_of_noise)}."
            )
        start = self.input.input.expand(codes[0].shape[0], -1, -1, -1)
        maps = self.conv1(start, codes[0], maps_of_noise[0])
        picture: Tensor = self.to_rgb1(maps, codes[1], None)
        return self._levels(0, maps, picture, codes, maps_of_noise)

    def _levels(
        self, first: int, maps: Tensor, picture: Tensor, codes: Sequence[Tensor], noise: Noise
    ) -> Tensor:
        """The picture after all doublings from ``first`` on; large maps go through in parts."""
        for level in range(first, len(self.to_rgbs)):
            part = self._rows_at_once(level, maps)
            if part < maps.shape[0]:
                shares = [slice(start, start + part) for start in range(0, maps.shape[0], part)]
                done = [
                    self._levels(
                        level, maps[rows], picture[rows], [code[rows] for code in codes],
                        [_share(each, rows) for each in noise],
                    )
                    for rows in shares
                ]  # fmt: skip
                return torch.cat(done)
            up, across, colour = codes[3 * level + 2 : 3 * level + 5]
            maps = self.convs[2 * level](maps, up, noise[2 * level + 1])
            maps = self.convs[2 * level + 1](maps, across, noise[2 * level + 2])
            picture = self.to_rgbs[level](maps, colour, picture)
        return picture

    def _rows_at_once(self, level: int, maps: Tensor) -> int:
        """How many rows share a pass: on a CPU with frozen weights, as many as stay in LARGEST.

        Larger tensors come from the system at every use, page by page, which costs more than the
        arithmetic that a common pass saves.
        """
        if maps.device.type != "cpu" or self.conv1.conv.weight.requires_grad:
            return maps.shape[0]
        after = 4 * self.shape.channels[level + 1] * maps.shape[2] * maps.shape[3]
        return max(1, LARGEST // (after * maps.element_size()))

    def forward(self, w_plus: Tensor, noise: Noise | None = None) -> Tensor:
        """The picture [B, 3, size, size] of a W+ code [B, rows, style]."""
        return self.synthesis(self.codes(w_plus), noise)


def _share(noise: Tensor | None, rows: slice) -> Tensor | None:
    return noise if noise is None or noise.shape[0] == 1 else noise[rows]


def fixed_noise(layer: int, side: int) -> Tensor:
    """The noise map [1, 1, side, side] of a layer in generators whose file holds none."""
    return Seeds.of(layer).normal((1, side, side), "stylegan2/noise")


def truncate(w_plus: Tensor, centre: Tensor, psi: float, rows: int | None = None) -> Tensor:
    """W+ codes drawn toward ``centre`` ([style] or [rows, style]): centre + psi (w - centre).

    ``rows`` limits it to the first rows (the coarse ones).  Source: Karras et al. 2019, section B.
    """
    drawn = centre + psi * (w_plus - centre)
    if rows is None:
        return drawn
    return torch.cat([drawn[:, :rows], w_plus[:, rows:]], dim=1)


def mix(first: Tensor, second: Tensor, row: int) -> Tensor:
    """W+ codes [B, rows, style]: rows before ``row`` from ``first``, the others from ``second``."""
    return torch.cat([first[:, :row], second[:, row:]], dim=1)
