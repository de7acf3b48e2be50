"""Pairs of values that training never shows: counted, and held against nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guided.worlds.portraits import HELD_OUT_PAIRS, KEYS, VALUES, Portrait, sample
from guided.worlds.portraits.attributes import COLOR_KEYS, COLORS
from guided.worlds.portraits.grammar.captions import caption, edited
from guided.worlds.portraits.grammar.claims import COLUMNS, Claim, ClaimTable, codes
from guided.worlds.portraits.training.clip_pairs import palette_colors
from guided.worlds.portraits.training.color_labels import Named, judged, named, names_of
from guided.worlds.portraits.training.unseen_pairs import (
    beside,
    never_shown,
    shown_columns,
    unshown_pairs,
    value_columns,
)


class Said:
    """A text that is nothing but its claims."""

    def __init__(self, **claims: str) -> None:
        self.claims = tuple(Claim(key, frozenset(v.split("|"))) for key, v in claims.items())


def plain(people: list[Portrait]) -> Named:
    """What portraits in their own colours may be called."""
    coded = codes(people)
    return named(coded, palette_colors(coded), np.zeros(len(people), np.bool_), excuse=True)


def person(**changes: str) -> Portrait:
    """A hatless portrait with some attributes set."""
    made = sample(0, "val").with_attribute("hat", "none")
    for key, value in changes.items():
        made = made.with_attribute(key, value)
    return made


def texts_excused(portrait: Portrait, *said: Said) -> list[bool]:
    """Which texts are held against nobody, for one portrait."""
    return judged(plain([portrait]), ClaimTable.of(said).forbidden)[1][0].tolist()


@pytest.mark.soak
def test_counting_finds_every_held_out_pair() -> None:
    pairs = unshown_pairs()
    assert pairs.shape == (COLUMNS, COLUMNS)
    assert np.array_equal(pairs, pairs.T)
    for (key, value), (other, second) in HELD_OUT_PAIRS:
        assert never_shown(Said(**{key: value, other: second}))
    assert int(pairs.sum()) // 2 < 1.5 * len(HELD_OUT_PAIRS)


def test_a_red_top_hat_is_no_evidence_against_a_green_one() -> None:
    red = person(clothing="blue", hat="tophat", hat_color="red", earrings="none")
    green, yellow = Said(hat_color="green"), Said(hat_color="yellow")
    both = Said(hat_color="green", earrings="earrings")
    assert texts_excused(red, green, yellow) == [True, False]
    assert texts_excused(red, both) == [False]
    beanie = person(clothing="blue", hat="beanie", hat_color="red")
    assert texts_excused(beanie, green) == [False]


def test_absence_is_evidence() -> None:
    hatted = person(clothing="blue", hat="tophat", hat_color="red")
    assert texts_excused(hatted, Said(hat="none")) == [False]
    bare = person(hair_style="short", hair_color="brown", beard="none")
    hat = Said(hat="beanie|cap|tophat", hat_color="green")
    assert texts_excused(bare, hat) == [False]


def test_nobody_is_excused_from_the_truth() -> None:
    rng = np.random.default_rng(0)
    people = [sample(seed, "val") for seed in range(64)]
    said = [caption(one, rng) for one in people]
    said += [miss for one, own in zip(people, said, strict=True) if (miss := edited(own, one, rng))]
    table, coded = ClaimTable.of(said), codes(people)
    true, excused = judged(plain(people), table.forbidden)
    assert 0 < excused.mean() < 0.1
    assert np.array_equal(true, table.matrix(coded))
    own = shown_columns(coded)
    shown = (beside(own) & ~own)[:, value_columns()]
    assert 0 < shown.mean() < 0.2
    assert not any(never_shown(own) for own in said[:64])


@pytest.mark.parametrize("values", ["green", "green|white"])
def test_a_text_with_a_shown_way_to_be_true_is_no_stranger(values: str) -> None:
    assert never_shown(Said(hat="tophat", hat_color=values)) is (values == "green")


def test_names_of_colours() -> None:
    blue, purple = (44 / 255, 98 / 255, 214 / 255), (134 / 255, 70 / 255, 194 / 255)
    colors = np.array([blue, purple, np.add(blue, purple) / 2, (0.5, 0.5, 0.5)], np.float32)
    found, sure = names_of(colors, "clothing")
    assert sure.tolist() == [True, True, False, False]
    values = VALUES["clothing"]
    assert [values[i] for i in np.flatnonzero(found[0])] == ["blue"]
    assert [values[i] for i in np.flatnonzero(found[1])] == ["purple"]
    assert {values[i] for i in np.flatnonzero(found[2])} == {"blue", "purple"}
    assert found.any(1).all()


def test_a_purple_cap_is_not_blue_and_not_called_purple() -> None:
    cap = person(
        clothing="orange", background="pink", skin="light", beard="none", earrings="none",
        hat="cap", hat_color="blue",
    )  # fmt: skip
    coded = codes([cap, cap])
    colors = palette_colors(coded)
    place = COLOR_KEYS.index("hat_color")
    colors[1, place] = torch.tensor([134.0, 70.0, 194.0]) / 255
    found = named(coded, colors, np.array([False, True]), excuse=True)
    hat = KEYS.index("hat_color")
    assert found.codes[:, hat].tolist() == [COLORS.index("blue"), -1]
    assert (found.codes == coded)[:, [k for k in range(len(KEYS)) if k != hat]].all()
    said = [Said(hat_color=color) for color in ("blue", "purple", "red")]
    true, unsure = judged(found, ClaimTable.of(said).forbidden)
    assert true.tolist() == [[True, False, False], [False, False, False]]
    assert unsure.tolist() == [[False, True, False], [False, True, False]]
    loose = named(coded, colors, np.array([False, True]), excuse=False)
    assert loose.codes[:, hat].tolist() == [COLORS.index("blue"), COLORS.index("purple")]
