"""diffusers' autoencoders, folded: four pixels are one place with four times the channels.

A level at the full size costs as much as all others together and works with a few channels, which
processors do badly.  Here the first layer folds 2 x 2 pixels into channels and the last unfolds
them; between, everything is as it was, with one level less for the same size of latents.
Source: Shi et al. 2016 (sub-pixel convolution), for the unfolding.
"""

from __future__ import annotations

import functools
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny, ConfigMixin, ModelMixin
from torch import nn

__all__ = ["FOLD", "ConfigMixin", "FoldedAutoencoderKL", "FoldedAutoencoderTiny", "ModelMixin"]

FOLD = 2


def _folded(conv: nn.Conv2d) -> nn.Sequential:
    """A first layer that sees 2 x 2 pixels at once."""
    own = nn.Conv2d(FOLD**2 * conv.in_channels, conv.out_channels, 3, padding=1)
    return nn.Sequential(nn.PixelUnshuffle(FOLD), own)


def _unfolded(conv: nn.Conv2d) -> nn.Sequential:
    """A last layer that gives 2 x 2 pixels at once."""
    own = nn.Conv2d(conv.in_channels, FOLD**2 * conv.out_channels, 3, padding=1)
    return nn.Sequential(own, nn.PixelShuffle(FOLD))


class FoldedAutoencoderKL(AutoencoderKL):  # type: ignore[misc]
    """AutoencoderKL with ``block_out_channels`` from half the size down; the same keys."""

    fold = FOLD

    @functools.wraps(AutoencoderKL.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder.conv_in = _folded(self.encoder.conv_in)
        self.decoder.conv_out = _unfolded(self.decoder.conv_out)


class FoldedAutoencoderTiny(AutoencoderTiny):  # type: ignore[misc]
    """AutoencoderTiny with its channels from half the size down; the same keys."""

    fold = FOLD

    @functools.wraps(AutoencoderTiny.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder.layers[0] = _folded(self.encoder.layers[0])
        self.decoder.layers[-1] = _unfolded(self.decoder.layers[-1])
