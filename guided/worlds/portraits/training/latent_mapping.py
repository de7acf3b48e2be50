"""A mapping network whose weights are known: from z to a W in which every fact is a direction.

The facts of ``latent_world`` are decision trees over z.  Eight layers of leaky ReLU
can follow them almost exactly, so nothing has to be learnt:

    1     how far above its threshold each component is, held between 0 and 1
    2     the same again, which makes the step steep
    3     for each value: are all answers on its path the right ones?
    4, 5  what is below 0 is pressed towards it
    6, 7  the colour of the hat, for which the clothing counts too
    8     all values and the geometry, scaled

A step is the difference of two leaky ReLUs, lrelu(x + 1/2) - lrelu(x - 1/2), which is 0.2 below
-1/2 and 1 above 1/2.  The traits of the geometry pass as 1 + g and 1 - g in turn, so that each
layer cuts one of their ends.  Closer to a threshold than 1 / 72, w lies between two values.

So w has a component for each value of each attribute: 0 without it, ``SCALE`` with it; and one for
each trait, ``SCALE`` * (1 + g).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guided.errors import CannotDo
from guided.nets.equalized import GAIN, SLOPE, EqualLinear
from guided.worlds.portraits.attributes import KEYS, TRAITS, VALUES
from guided.worlds.portraits.training.latent_world import Cut, traits, trees
from guided.worlds.portraits.training.truth_losses import FACTS

#: Layers of a mapping network, and the smallest width that holds all values and traits.
DEPTH = 8
#: What a value that is there adds to its component of w.
SCALE = 2.5
#: How steep a step is in its first and second layer.
_STEEP = 6.0


def value_columns() -> dict[str, slice]:
    """Which components of w hold the values of each attribute."""
    found, place = {}, 0
    for key in KEYS:
        found[key] = slice(place, place + len(VALUES[key]))
        place += len(VALUES[key])
    return found


def trait_columns() -> slice:
    """Which components of w hold the traits of the geometry."""
    return slice(FACTS, FACTS + len(TRAITS))


def mapping_weights(latent: int, style: int) -> list[tuple[Tensor, Tensor]]:
    """The effective weight [out, in] and bias [out] of each of the eight layers, float32.

    Raises:
        CannotDo: too narrow for the facts of the drawn world.
    """
    needed = FACTS + len(TRAITS) + len(VALUES["hat_color"])
    if style < needed or latent < traits().stop:
        raise CannotDo(
            f"A mapping from {latent} to {style} numbers cannot hold the facts of a portrait.",
            hint=f"It takes {traits().stop} and {needed} or more.",
        )
    layers = [_first(latent, style), _second(style), _paths(style)]
    layers += [_pass(style, FACTS - 1, len(layers) + i) for i in range(2)]
    layers += [_hat_answers(style), _hat_colors(style), _last(style)]
    return layers


def install(mapping: torch.nn.Sequential) -> None:
    """Give a mapping network (PixelNorm and eight ``EqualLinear``) these weights.

    Raises:
        CannotDo: another depth, or too narrow.
    """
    layers = [layer for layer in mapping if isinstance(layer, EqualLinear)]
    if len(layers) != DEPTH:
        raise CannotDo(f"The mapping has {len(layers)} layers; the facts take {DEPTH}.")
    found = mapping_weights(layers[0].weight.shape[1], layers[0].weight.shape[0])
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, found, strict=True):
            layer.weight.copy_(weight / layer.scale)
            layer.bias.copy_(bias / layer.pace)


def _cuts() -> list[Cut]:
    return [cut for tree in trees().values() for cut in tree.cuts]


def _paths_of(key: str) -> int:
    return len(trees()[key].paths)


def _blank(inputs: int, style: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(style, inputs), torch.zeros(style)


def _first(latent: int, style: int) -> tuple[Tensor, Tensor]:
    weight, bias = _blank(latent, style)
    for i, cut in enumerate(_cuts()):
        for row, side in ((2 * i, 0.5), (2 * i + 1, -0.5)):
            weight[row, cut.component] = _STEEP
            bias[row] = side - _STEEP * cut.threshold
    for i in range(len(TRAITS)):
        weight[-1 - i, traits().start + i], bias[-1 - i] = 0.5, 1.0
    return weight, bias


def _step(weight: Tensor, row: int, i: int, factor: float) -> float:
    """Add ``factor`` times step ``i`` of the layer below, in [0, 1]; returns what that adds."""
    share = factor / ((1 - SLOPE) * GAIN)
    weight[row, 2 * i] += share
    weight[row, 2 * i + 1] -= share
    return -factor * SLOPE / (1 - SLOPE)


def _mirror(weight: Tensor, bias: Tensor) -> None:
    """The traits, 1 + g or 1 - g in the last units, as 2 minus that."""
    for i in range(len(TRAITS)):
        weight[-1 - i, -1 - i], bias[-1 - i] = -1 / GAIN, 2.0


def _second(style: int) -> tuple[Tensor, Tensor]:
    weight, bias = _blank(style, style)
    for i in range(len(_cuts())):
        for row, side in ((2 * i, 0.5), (2 * i + 1, -0.5)):
            bias[row] = side - 0.5 * _STEEP + _step(weight, row, i, _STEEP)
    _mirror(weight, bias)
    return weight, bias


def _paths(style: int) -> tuple[Tensor, Tensor]:
    weight, bias = _blank(style, style)
    places, row = {cut: i for i, cut in enumerate(_cuts())}, 0
    for tree in trees().values():
        for path in tree.paths:
            bias[row] = 1.0 - len(path)
            for cut, above in path:
                bias[row] += 0 if above else 1
                bias[row] += _step(weight, row, places[cut], 1.0 if above else -1.0)
            row += 1
    _mirror(weight, bias)
    return weight, bias


def _pass(style: int, values: int, number: int) -> tuple[Tensor, Tensor]:
    weight, bias = _blank(style, style)
    for row in range(values):
        weight[row, row] = 1 / GAIN
    _mirror(weight, bias)
    return weight, bias


def _starts() -> dict[str, int]:
    """Where the values of each attribute begin while the hat has seven colours."""
    starts, place = {}, 0
    for key in KEYS:
        starts[key] = place
        place += _paths_of(key)
    return starts


def _hat_answers(style: int) -> tuple[Tensor, Tensor]:
    """Beside all values: is the hat's colour h the h-th of the others, or the one before?"""
    weight, bias = _pass(style, FACTS - 1, 5)
    starts, colors = _starts(), len(VALUES["hat_color"])
    hat, clothing = starts["hat_color"], starts["clothing"]
    weight[hat : hat + colors - 1] = 0
    for h in range(colors):
        if h < colors - 1:
            row = hat + h
            weight[row, [hat + h, *range(clothing + h + 1, clothing + colors)]] = 1 / GAIN
            bias[row] = -1
        if h > 0:
            row = FACTS - 2 + h
            weight[row, [hat + h - 1, *range(clothing, clothing + h)]] = 1 / GAIN
            bias[row] = -1
    return weight, bias


def _hat_colors(style: int) -> tuple[Tensor, Tensor]:
    """All values in their final places, those of the hat's colour put together."""
    weight, bias = _blank(style, style)
    starts = _starts()
    for key, place in value_columns().items():
        for i in range(_paths_of(key)):
            weight[place.start + i, starts[key] + i] = 1 / GAIN
    hat, last = value_columns()["hat_color"].start, len(VALUES["hat_color"]) - 1
    for h in range(1, last + 1):
        weight[hat + h, FACTS - 2 + h] = 1 / GAIN
    # Where two answers are added, the one that is no leaves -SLOPE beside the 1 of the other.
    weight[hat + 1 : hat + last] /= 1 - SLOPE
    _mirror(weight, bias)
    return weight, bias


def _last(style: int) -> tuple[Tensor, Tensor]:
    weight, bias = _blank(style, style)
    size = SCALE / (GAIN * GAIN)
    for row in range(FACTS):
        weight[row, row] = size
    for i in range(len(TRAITS)):
        weight[trait_columns().start + i, -1 - i] = size
    return weight, bias


def border() -> float:
    """How close to a threshold, in components of z / rms(z), w lies between two values."""
    return 0.5 / math.pow(_STEEP, 2)
