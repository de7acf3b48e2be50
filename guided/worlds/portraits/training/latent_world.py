"""The drawn world as a function of z ~ N(0, I), and its inverse in distribution.

A generator that learns pictures from their z needs a world whose every fact is a fixed function of
z, so that z stays a standard normal vector.  Here a fact is read like the answer of a decision
tree: each question is whether one component of z lies above a threshold, halving the values that
are left, the first one (of most attributes) whether there is anything at all.  Few z lie near a
border then, where a continuous mapping cannot help but draw something in between, and a small
network can follow.  A trait of the geometry is half a component, clipped to [-1, 1], as in the
drawn world itself.

Facts are read off z / rms(z), which is what a mapping network sees, so they do not depend on the
length of z.  ``conditional`` goes back: for a picture's facts it draws one of all z that give them,
so that z over many pictures is normal again, up to the value pairs that a split leaves out.  The
components that nothing reads are free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from guided.errors import ShapeError
from guided.worlds.portraits.attributes import KEYS, TRAITS, VALUES, Portrait, chances
from guided.worlds.portraits.training.world_data import ABSENT

#: Components of z.
LATENT = 128
#: Values that mean something is not there; each is the first of its attribute.
_ABSENCE = frozenset({"none", "bald"})
_CLOTHING, _HAT, _HAT_COLOR = (KEYS.index(key) for key in ("clothing", "hat", "hat_color"))


class Cut(NamedTuple):
    """One question: does this component lie above this threshold?"""

    component: int
    threshold: float


@dataclass(frozen=True)
class Tree:
    """How one attribute is read off z: ``paths[i]`` are the cuts and answers that give value i.

    The values of ``hat_color`` are the seven colours that are not the clothing's, in their order.
    """

    components: range
    paths: tuple[tuple[tuple[Cut, bool], ...], ...]

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """All its questions, each once."""
        return tuple(dict.fromkeys(cut for path in self.paths for cut, _ in path))


@cache
def trees() -> dict[str, Tree]:
    """Each attribute's place in z, by its key."""
    found, place = {}, 0
    for key in KEYS:
        odds = list(chances(key)) if key != "hat_color" else [1.0] * (len(VALUES[key]) - 1)
        paths: list[list[tuple[Cut, bool]]] = [[] for _ in odds]
        if VALUES[key][0] in _ABSENCE:
            _halve(paths, odds, [0], list(range(1, len(odds))), place)
        else:
            _split(paths, odds, list(range(len(odds))), place)
        depth = max(map(len, paths))
        found[key] = Tree(range(place, place + depth), tuple(map(tuple, paths)))
        place += depth
    return found


@cache
def traits() -> slice:
    """The components of the geometry, in the order of ``TRAITS``."""
    start = max(tree.components.stop for tree in trees().values())
    return slice(start, start + len(TRAITS))


def normalised(z: np.ndarray) -> np.ndarray:
    """Vectors z [n, LATENT] divided by their root mean square, float64.

    Raises:
        ShapeError: another shape.
    """
    z = np.asarray(z, np.float64)
    if z.ndim != 2 or z.shape[1] != LATENT:
        raise ShapeError(f"z has the shape [n, {LATENT}], not {list(z.shape)}.")
    lengths = np.sqrt(np.square(z).mean(1, keepdims=True))
    return np.asarray(z / np.where(lengths > 0, lengths, 1))


def facts(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What vectors z [n, LATENT] say: codes [n, 13] uint8 as in a pool, geometry [n, 24] float64.

    A code is a position in ``VALUES[key]``; ABSENT stands for the colour of a hat that is not
    there.

    Raises:
        ShapeError: another shape.
    """
    u = normalised(z)
    codes = np.zeros((len(u), len(KEYS)), np.uint8)
    for column, tree in enumerate(trees().values()):
        for value, path in enumerate(tree.paths):
            answers = [(u[:, c.component] > c.threshold) == above for c, above in path]
            codes[np.logical_and.reduce(answers), column] = value
    codes[:, _HAT_COLOR] += codes[:, _HAT_COLOR] >= codes[:, _CLOTHING]
    codes[codes[:, _HAT] == 0, _HAT_COLOR] = ABSENT
    return codes, np.clip(0.5 * u[:, traits()], -1, 1)


def portraits(z: np.ndarray) -> list[Portrait]:
    """The portraits of vectors z [n, LATENT]."""
    return [
        Portrait(
            {
                key: None if code == ABSENT else VALUES[key][code]
                for key, code in zip(KEYS, row, strict=True)
            },
            dict(zip(TRAITS, map(float, shape), strict=True)),
        )
        for row, shape in zip(*facts(z), strict=True)
    ]


def conditional(codes: np.ndarray, geometry: np.ndarray, stream: np.random.Generator) -> np.ndarray:
    """Vectors z [n, LATENT] float64 drawn from those that say these codes and this geometry.

    ``codes`` [n, 13] are a pool's, ``geometry`` [n, 24] in [-1, 1] is in the order of ``TRAITS``.

    Raises:
        ShapeError: shapes that do not belong together.
    """
    codes, geometry = np.asarray(codes), np.asarray(geometry, np.float64)
    if codes.shape != (len(geometry), len(KEYS)) or geometry.shape[1:] != (len(TRAITS),):
        raise ShapeError(
            f"Codes [n, {len(KEYS)}] and geometry [n, {len(TRAITS)}] belong together; given are "
            f"{list(codes.shape)} and {list(geometry.shape)}."
        )
    low, high = _bounds(codes.astype(np.int64), geometry)
    used, fixed = traits().stop, np.abs(geometry) < 1
    u = np.empty((len(codes), LATENT))
    wanted = np.arange(len(codes))
    while len(wanted):  # nearly always once: the used components are too long for a sphere
        uniform = stream.random((len(wanted), used))
        u[wanted, :used] = ndtri(low[wanted] + (high[wanted] - low[wanted]) * uniform)
        u[:, traits()] = np.where(fixed, 2 * geometry, u[:, traits()])
        left = LATENT - np.square(u[wanted, :used]).sum(1)
        free = stream.standard_normal((len(wanted), LATENT - used))
        free *= np.sqrt(np.maximum(left, 0) / np.square(free).sum(1))[:, None]
        u[wanted, used:] = free
        wanted = wanted[left <= 0]
    return u * np.sqrt(stream.chisquare(LATENT, (len(u), 1)) / LATENT)


def geometry_of(portrait: Portrait) -> np.ndarray:
    """A portrait's geometry [24] in the order of ``TRAITS``."""
    return np.array([portrait.geometry[name] for name in TRAITS])


def ndtr(x: np.ndarray | float) -> np.ndarray:
    """The normal distribution function, in float64."""
    return np.asarray(torch.special.ndtr(torch.as_tensor(x, dtype=torch.float64)))


def ndtri(p: np.ndarray | float) -> np.ndarray:
    """The normal quantile function, in float64, finite: 0 and 1 count as the nearest numbers."""
    inside = np.clip(np.asarray(p, np.float64), 1e-300, 1 - 2**-53)
    return np.asarray(torch.special.ndtri(torch.as_tensor(inside, dtype=torch.float64)))


def _split(
    paths: list[list[tuple[Cut, bool]]], odds: Sequence[float], values: list[int], place: int
) -> None:
    """Ask until each of these values is alone, at each depth by the next component."""
    if len(values) > 1:
        half = (len(values) + 1) // 2
        _halve(paths, odds, values[:half], values[half:], place)


def _halve(
    paths: list[list[tuple[Cut, bool]]],
    odds: Sequence[float],
    below: list[int],
    above: list[int],
    place: int,
) -> None:
    share = math.fsum(odds[i] for i in below) / math.fsum(odds[i] for i in below + above)
    threshold = 0.0 if math.isclose(share, 0.5) else round(float(ndtri(share)), 12)
    for side, answer in ((below, False), (above, True)):
        for value in side:
            paths[value].append((Cut(place, threshold), answer))
        _split(paths, odds, side, place + 1)


def _bounds(codes: np.ndarray, geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which quantiles [n, used] each component of z / rms(z) lies."""
    codes = codes.copy()
    colored = codes[:, _HAT_COLOR] != ABSENT
    codes[:, _HAT_COLOR] -= codes[:, _HAT_COLOR] > codes[:, _CLOTHING]
    low = np.zeros((len(codes), traits().stop))
    high = np.ones_like(low)
    for column, (key, tree) in enumerate(trees().items()):
        rows = colored if key == "hat_color" else np.ones(len(codes), bool)
        first, last = _intervals(key)
        here = slice(tree.components.start, tree.components.stop)
        low[rows, here] = first[codes[rows, column]]
        high[rows, here] = last[codes[rows, column]]
    tail = float(ndtr(2.0))
    low[:, traits()] = np.where(geometry >= 1, tail, 0)
    high[:, traits()] = np.where(geometry <= -1, 1 - tail, 1)
    return low, high


@cache
def _intervals(key: str) -> tuple[np.ndarray, np.ndarray]:
    """For each value of an attribute the quantiles [values, depth] that its path allows."""
    tree = trees()[key]
    low = np.zeros((len(tree.paths), len(tree.components)))
    high = np.ones_like(low)
    for value, path in enumerate(tree.paths):
        for cut, above in path:
            side = low if above else high
            side[value, cut.component - tree.components.start] = ndtr(cut.threshold)
    return low, high
