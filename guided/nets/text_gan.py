"""A small text-to-image GAN: a FiLM-conditioned generator and a projection discriminator.

The trunk of the generator ends at half the side; a pixel shuffle and one cheap convolution do the
rest, because on a CPU the last level costs as much as all levels before it.
Sources: Tao et al. 2022 (DF-GAN, condition in every block); Perez et al. 2018 (FiLM); Karras et
al. 2018 (pixel norm, a statistic of the minibatch); Miyato & Koyama 2018 (projection); Shi et al.
2016 (pixel shuffle).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.core.shapes import expect
from guided.errors import CannotDo, CorruptWeights, library_message
from guided.nets.equalized import mapping_network

SLOPE = 0.2
_HALF = math.sqrt(0.5)
#: An overlay's cover starts at sigmoid(-3); its masks and ink move this much faster than weights.
_CLEAR, _MASK_GAIN, _INK_GAIN = -3.0, 30.0, 30.0
_NOTHING = -12.0


@dataclass(frozen=True)
class TextGanShape:
    """The numbers a generator is built from.

    ``size`` is the side of its pictures, ``text`` the width of the CLIP's features, ``channels``
    the widths of the trunk from 4 px to size / 2, ``finish`` the channels at the full side,
    ``frozen_layers`` those of a mapping network that z passes first and that is not trained,
    ``masks`` the full-size drawings, one of which the style picks (0: none).

    Raises:
        CannotDo: a size that the widths do not lead to.
    """

    size: int = 128
    text: int = 256
    latent: int = 128
    channels: tuple[int, ...] = (136, 136, 104, 64, 32)
    style: int = 144
    hidden: int = 224
    finish: int = 8
    frozen_layers: int = 0
    masks: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or self.size != 8 << (len(self.channels) - 1):
            raise CannotDo(
                f"{len(self.channels)} widths make pictures of "
                f"{8 << max(len(self.channels) - 1, 0)} px, not of {self.size} px.",
                hint="Give one width for each level: 4 px, 8 px, ... up to half the size.",
            )

    def plain(self) -> dict[str, Any]:
        """The same as plain values, for a configuration file."""
        return {**asdict(self), "channels": list(self.channels)}


class TextGenerator(nn.Module):
    """z [B, latent] and unit CLIP features [B, text] to pictures [B, 3, size, size], about [-1, 1].

    A zero feature asks for anything.  ``styles`` and ``synthesis`` are the two halves.
    """

    def __init__(self, shape: TextGanShape) -> None:
        super().__init__()
        self.shape = shape
        widths, style = shape.channels, shape.style
        self.text_proj = nn.Linear(shape.text, style)
        self.frozen_mapping = mapping_network(shape.latent, shape.latent, shape.frozen_layers)
        self.frozen_mapping.requires_grad_(False)
        self.mapping = nn.Sequential(
            nn.Linear(shape.latent + style, shape.hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(shape.hidden, shape.hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(shape.hidden, style),
        )
        for layer in (self.text_proj, *self.mapping):
            if isinstance(layer, nn.Linear):  # styles of unit variance: z and text count at once
                nn.init.kaiming_normal_(layer.weight, a=SLOPE)
                nn.init.zeros_(layer.bias)
        self.first = max(widths[0] // 4, 1)
        self.start = nn.Linear(style, self.first * 16)
        before = (self.first, *widths[:-1])
        self.blocks = nn.ModuleList(
            FilmBlock(b, a, style, grows=i > 0)
            for i, (b, a) in enumerate(zip(before, widths, strict=True))
        )
        self.last = nn.Conv2d(widths[-1], 4 * shape.finish, 3, padding=1)
        self.colours = nn.Conv2d(shape.finish, 3, 3, padding=1)
        self.mask_overlay = MaskOverlay(shape.masks, style, shape.size) if shape.masks else None

    def styles(self, z: Tensor, text: Tensor) -> Tensor:
        """What steers the pictures, [B, style], of z and unit features (or zeros)."""
        text_features = self.text_proj(text * math.sqrt(self.shape.text))
        with torch.autocast(z.device.type, enabled=False):
            even = self.frozen_mapping(z)
        made: Tensor = self.mapping(torch.cat([even.to(text_features.dtype), text_features], 1))
        return made

    def synthesis(self, styles: Tensor) -> Tensor:
        """Pictures [B, 3, size, size] of styles [B, style]."""
        maps = F.leaky_relu(self.start(styles), SLOPE).view(-1, self.first, 4, 4)
        maps = maps.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            maps = block(maps, styles)
        maps = F.pixel_shuffle(F.leaky_relu(self.last(maps), SLOPE), 2)
        picture: Tensor = self.colours(maps.contiguous(memory_format=torch.channels_last)).float()
        return picture if self.mask_overlay is None else self.mask_overlay(picture, styles)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Pictures of z and features.

        Raises:
            ShapeError: other shapes.
        """
        rows = expect(z, f"b {self.shape.latent}", "z")["b"]
        expect(text, f"{rows} {self.shape.text}", "text")
        return self.synthesis(self.styles(z, text))


class MaskOverlay(nn.Module):
    """A layer over the picture for what always stands at one place: writing, a frame, a mark.

    FiLM moves channels as a whole, so a trunk that grows from 4 px learns such things last.  The
    style picks one of ``count`` masks and mixes the ink; the layer is laid over the picture.
    """

    def __init__(self, count: int, style: int, side: int) -> None:
        super().__init__()
        self.pick = nn.Linear(style, count)
        self.ink = nn.Linear(style, 3)
        nn.init.zeros_(self.ink.weight)
        nn.init.ones_(self.ink.bias)
        self.masks = nn.Parameter(torch.full((count, side, side), _CLEAR / _MASK_GAIN))

    @torch.no_grad()
    def prune(self, least: float = 0.125, empty: Sequence[int] = ()) -> None:
        """Clear all that covers less than ``least``, and the masks ``empty`` altogether."""
        faint = (self.masks * _MASK_GAIN).sigmoid() < least
        faint[list(empty)] = True
        self.masks[faint] = _NOTHING / _MASK_GAIN

    def picked(self, styles: Tensor) -> Tensor:
        """How much styles [B, style] ask for each mask: logits [B, count]."""
        logits: Tensor = self.pick(styles)
        return logits

    def forward(self, picture: Tensor, styles: Tensor) -> Tensor:
        """The picture [B, 3, side, side] under the layer that styles [B, style] pick."""
        share = self.picked(styles).float().softmax(1)
        drawn = share @ (self.masks.flatten(1) * _MASK_GAIN)
        cover = drawn.float().sigmoid().view(-1, 1, *self.masks.shape[1:])
        ink = self.ink(F.normalize(styles.float(), dim=1) * _INK_GAIN).float()[:, :, None, None]
        covered: Tensor = picture + cover * (ink - picture)
        return covered


class FilmBlock(nn.Module):
    """Twice pixel norm, FiLM, leaky ReLU and a 3x3 convolution, beside a 1x1 shortcut.

    A block that grows doubles the side before its last convolution alone: all else is done at a
    quarter of the cost.
    """

    def __init__(self, before: int, after: int, style: int, *, grows: bool) -> None:
        super().__init__()
        self.grows = grows
        self.film = nn.Linear(style, 2 * (before + after))
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = (
            nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()
        )
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)
        self.split = [before, before, after, after]

    def forward(self, maps: Tensor, styles: Tensor) -> Tensor:
        """Maps [B, before, H, W] to [B, after, H', W']."""
        scale, shift, scale_2, shift_2 = torch.split(self.film(styles), self.split, 1)
        inner = self.first(_bent(maps, scale, shift))
        inner, short = _bent(inner, scale_2, shift_2), self.shortcut(maps)
        if self.grows:
            inner, short = (F.interpolate(x, scale_factor=2.0) for x in (inner, short))
        inner = self.second(inner)
        joined: Tensor = (short + inner) * _HALF
        return joined


def _bent(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Pixel norm, then scale and shift for each channel, then a leaky ReLU."""
    length = torch.rsqrt(maps.square().mean(1, keepdim=True) + 1e-6).to(maps.dtype)
    strength = (1 + scale).to(maps.dtype)[:, :, None, None]
    moved = torch.addcmul(shift.to(maps.dtype)[:, :, None, None], maps * length, strength)
    return F.leaky_relu(moved, SLOPE)


class TextDiscriminator(nn.Module):
    """Pictures [B, 3, size, size] to features, and features with texts to logits [B].

    logit = psi(f) + <f, V c> / sqrt(d): the second term asks whether picture and text belong
    together.  ``group`` rows that follow each other are compared in the minibatch statistic.
    """

    def __init__(
        self, size: int, text: int, channels: tuple[int, ...], features: int, group: int = 8
    ) -> None:
        super().__init__()
        if size != 8 << (len(channels) - 1):
            raise CannotDo(
                f"{len(channels)} widths look at pictures of {8 << (len(channels) - 1)} px, "
                f"not of {size} px."
            )
        self.group, self.width = group, text
        self.stem = nn.Conv2d(12, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(_DownBlock(b, a) for b, a in pairwise(channels))
        self.joint = nn.Conv2d(channels[-1] + 1, channels[-1], 3, padding=1)
        self.features = nn.Linear(channels[-1] * 16, features)
        self.real = nn.Linear(features, 1)
        self.text_proj = nn.Sequential(
            nn.Linear(text, features), nn.LeakyReLU(SLOPE), nn.Linear(features, features)
        )

    def look(self, pictures: Tensor) -> Tensor:
        """Features [B, F] of pictures in [-1, 1]."""
        maps = F.pixel_unshuffle(pictures, 2).contiguous(memory_format=torch.channels_last)
        maps = F.leaky_relu(self.stem(maps), SLOPE)
        for block in self.blocks:
            maps = block(maps)
        plane = unlikeness(maps, self.group).to(maps.dtype).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
        maps = F.leaky_relu(self.joint(torch.cat([maps, plane], 1)), SLOPE)
        return F.leaky_relu(self.features(maps.flatten(1)), SLOPE)

    def judge(self, features: Tensor, text: Tensor) -> Tensor:
        """Logits [B], float32, of features with unit CLIP features [B, text] (or zeros)."""
        text_features = self.text_proj(text * math.sqrt(self.width))
        match = (features.float() * text_features.float()).sum(1) / math.sqrt(features.shape[1])
        logits: Tensor = self.real(features)[:, 0].float() + match
        return logits

    def forward(self, pictures: Tensor, text: Tensor) -> Tensor:
        """Logits [B] of pictures with texts."""
        return self.judge(self.look(pictures), text)


class _DownBlock(nn.Module):
    """A 3x3 and a 4x4 convolution that halves the side, beside an averaging shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, before, 3, padding=1)
        self.second = nn.Conv2d(before, after, 4, stride=2, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [B, before, H, W] to [B, after, H / 2, W / 2]."""
        inner = F.leaky_relu(self.first(maps), SLOPE)
        inner = F.leaky_relu(self.second(inner), SLOPE)
        short: Tensor = self.shortcut(F.avg_pool2d(maps, 2))
        return (short + inner) * _HALF


def unlikeness(maps: Tensor, group: int) -> Tensor:
    """How far each row of maps [B, C, H, W] lies from the others of its group: [B], float32.

    The root mean square distance to the mean of the others, which counts as a constant: a row's
    statistic has a gradient to that row alone.  Rows are grouped in their order; a row that is
    alone in its group gets 0.
    """
    flat, found = maps.flatten(1).float(), []
    for part in torch.split(flat, group):
        if len(part) == 1:
            found.append(part.sum(1) * 0)
            continue
        fixed = part.detach()
        others = (fixed.sum(0, keepdim=True) - fixed) / (len(part) - 1)
        found.append(((part - others).square().mean(1) + 1e-8).sqrt())
    return torch.cat(found) if found else flat.sum(1)


def build_text_generator(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TextGenerator:
    """The generator of a configuration with its weights.

    Raises:
        CorruptWeights: a configuration or weights of another form or size.
    """
    try:
        shape = dict(config)
        if "given" in shape:  # as version 0.1.0 called it
            shape["frozen_layers"] = shape.pop("given")
        net = TextGenerator(TextGanShape(**shape))
        net.load_state_dict({n: t.float() for n, t in tensors.items()})
    except (TypeError, ValueError, CannotDo, RuntimeError) as error:
        raise CorruptWeights(
            f"These weights are not those of a text GAN of {config.get('size', '?')} px: "
            f"{library_message(error)}.",
            hint="Weights and config.json belong together; take both from one training.",
        ) from error
    return net
