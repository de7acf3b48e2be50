"""World seeds to portraits, and the value pairs that training never sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from guided.worlds.portraits.attributes import COLORS, LATENT_SIZE, Portrait, from_latent

Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

Pair = tuple[tuple[str, str], tuple[str, str]]


def _pairs(key: str, other: str, *values: tuple[str, str]) -> tuple[Pair, ...]:
    return tuple(((key, a), (other, b)) for a, b in values)


#: Pairs of visible values: no training portrait has one, every test portrait has at least one.
HELD_OUT_PAIRS: tuple[Pair, ...] = (
    *_pairs("hair_color", "beard", ("pink", "full"), ("blue", "goatee"), ("gray", "moustache")),
    *_pairs("hat", "hat_color", ("tophat", "green"), ("cap", "purple"), ("beanie", "white")),
    *_pairs("hair_style", "glasses", ("bald", "round"), ("curly", "sunglasses"), ("bob", "square")),
    *_pairs("hair_style", "hair_color", ("long", "white"), ("spiky", "brown"), ("bun", "blue")),
    *_pairs("hair_style", "hair_color", ("ponytail", "black"), ("short", "pink")),
    *_pairs("skin", "hair_color", ("dark", "blonde"), ("pale", "gray"), ("tan", "red")),
    *_pairs("skin", "eyes", ("brown", "green"), ("light", "amber"), ("tan", "gray")),
    *_pairs("eyes", "expression", ("blue", "surprised"), ("brown", "frown")),
    *_pairs("expression", "beard", ("smile", "goatee"), ("neutral", "moustache")),
    *_pairs("expression", "glasses", ("frown", "sunglasses"), ("surprised", "round")),
    *_pairs("hat", "beard", ("cap", "full"), ("tophat", "moustache")),
    *_pairs("hat", "earrings", ("beanie", "earrings")),
    *_pairs("hat", "hair_style", ("beanie", "long"), ("tophat", "curly")),
    *_pairs("background", "clothing", ("red", "green"), ("blue", "yellow"), ("yellow", "purple")),
    *_pairs("background", "clothing", ("pink", "black"), ("green", "white"), ("gray", "orange")),
    *_pairs("background", "hair_color", ("orange", "blue"), ("purple", "blonde")),
    *_pairs("skin", "clothing", ("dark", "red"), ("pale", "blue")),
)


def held_out_pairs_of(attributes: Mapping[str, str | None]) -> list[Pair]:
    """The held-out pairs that a portrait with these attributes shows."""
    return [
        pair
        for pair in HELD_OUT_PAIRS
        if attributes[pair[0][0]] == pair[0][1] and attributes[pair[1][0]] == pair[1][1]
    ]


def _stream(seed: int, split: str) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    if seed < 0:
        raise ValueError(f"a world seed is a whole number from 0 up, not {seed}")
    return np.random.default_rng([seed, SPLITS.index(split)])


def _with_pair(portrait: Portrait, pair: Pair) -> Portrait:
    """The portrait changed just so much that it shows the pair, clothing and hat still apart."""
    wanted = dict(pair)
    if "hat_color" in wanted and portrait.attributes["clothing"] == wanted["hat_color"]:
        other = COLORS[(COLORS.index(wanted["hat_color"]) + 1) % len(COLORS)]
        portrait = portrait.with_attribute("clothing", other)
    for key, value in pair:
        portrait = portrait.with_attribute(key, value)
    if portrait.attributes["hat_color"] == portrait.attributes["clothing"]:
        color = str(portrait.attributes["clothing"])
        after = COLORS[(COLORS.index(color) + 1) % len(COLORS)]
        portrait = portrait.with_attribute("hat_color", after)
    hides = any(not portrait.visible()[key] for key, _ in pair)
    if hides and "hair_style" in wanted and "hat" not in wanted:
        portrait = portrait.with_attribute("hat", "none")
    if hides and "hair_color" in wanted and portrait.attributes["hair_style"] == "bald":
        portrait = portrait.with_attribute("hair_style", "curly")
    if hides and "eyes" in wanted:
        portrait = portrait.with_attribute("glasses", "none")
    return portrait


def latent_of(seed: int, split: Split = "train") -> np.ndarray:
    """The latent [LATENT_SIZE] of a train or val portrait: its first draw without a held-out pair.

    Raises:
        ValueError: unknown split, negative seed, or the test split (its portraits are edited after
            the draw, so they have no latent).
    """
    if split == "test":
        raise ValueError("test portraits are made to show a held-out pair and have no latent")
    stream = _stream(seed, split)
    while True:
        latent = stream.standard_normal(LATENT_SIZE)
        if not held_out_pairs_of(from_latent(latent).attributes):
            return latent


def sample(seed: int, split: Split = "train") -> Portrait:
    """The portrait of a world seed (0, 1, 2, ...).

    ``train`` and ``val`` never show a held-out pair and are disjoint streams; every ``test``
    portrait shows at least one.

    Raises:
        ValueError: unknown split or negative seed.
    """
    if split != "test":
        return from_latent(latent_of(seed, split))
    stream = _stream(seed, split)
    pair = HELD_OUT_PAIRS[int(stream.integers(len(HELD_OUT_PAIRS)))]
    return _with_pair(from_latent(stream.standard_normal(LATENT_SIZE)), pair)
