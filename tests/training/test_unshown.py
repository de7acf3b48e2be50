"""Pairs of values that training never shows: counted, and held against nobody."""

from __future__ import annotations

import numpy as np
import pytest

from guided.portraits import HELD_OUT_PAIRS, Portrait, sample
from guided.portraits.captions import caption, edited
from guided.portraits.claims import COLUMNS, Claim, ClaimTable, codes
from guided.training.unshown import (
    excused_texts,
    excused_values,
    never_shown,
    unshown_pairs,
    value_columns,
)


class Said:
    """A text that is nothing but its claims."""

    def __init__(self, **claims: str) -> None:
        self.claims = tuple(Claim(key, frozenset(v.split("|"))) for key, v in claims.items())


def person(**changes: str) -> Portrait:
    """A hatless portrait with some attributes set."""
    made = sample(0, "val").with_attribute("hat", "none")
    for key, value in changes.items():
        made = made.with_attribute(key, value)
    return made


def texts_excused(portrait: Portrait, *said: Said) -> list[bool]:
    """Which texts are held against nobody, for one portrait."""
    return excused_texts(codes([portrait]), ClaimTable.of(said).forbidden)[0].tolist()


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
    excused = excused_texts(coded, table.forbidden)
    assert 0 < excused.mean() < 0.1
    assert not (excused & table.matrix(coded)).any()
    shown = excused_values(coded)[:, value_columns()]
    assert 0 < shown.mean() < 0.2
    assert not any(never_shown(own) for own in said[:64])


@pytest.mark.parametrize("values", ["green", "green|white"])
def test_a_text_with_a_shown_way_to_be_true_is_no_stranger(values: str) -> None:
    assert never_shown(Said(hat="tophat", hat_color=values)) is (values == "green")
