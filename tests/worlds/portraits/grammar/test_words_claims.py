from __future__ import annotations

import re

import numpy as np
import pytest

from guided.worlds.portraits.attributes import KEYS, VALUES
from guided.worlds.portraits.grammar.captions import caption, edited_many
from guided.worlds.portraits.grammar.claims import ClaimTable, claims_matrix, codes
from guided.worlds.portraits.grammar.frames import JUDGE, TRAIN
from guided.worlds.portraits.grammar.judge_phrases import JUDGE_TABLE, JUDGE_WORDS
from guided.worlds.portraits.grammar.paraphrases import PARAPHRASES
from guided.worlds.portraits.grammar.phrases import TRAIN_TABLE, TRAIN_WORDS
from guided.worlds.portraits.splits import sample


def test_the_matrix_agrees_with_each_caption() -> None:
    rng = np.random.default_rng(0)
    people = [sample(seed) for seed in range(60)] + [sample(seed, "test") for seed in range(20)]
    said = [caption(p, rng, style=s, negation=0.3) for p in people for s in (TRAIN, JUDGE)]
    said += [wrong for p, c in zip(people, said[::2], strict=True)
             for wrong in edited_many(c, p, rng, 3)]  # fmt: skip
    matrix = claims_matrix(said, people)
    one_by_one = [[c.is_true(person.attributes) for c in said] for person in people]
    assert matrix.shape == (len(people), len(said))
    assert matrix.dtype == np.bool_
    np.testing.assert_array_equal(matrix, one_by_one)
    assert 0.01 < matrix.mean() < 0.5


def test_rows_of_a_table_are_the_table_of_the_rows() -> None:
    rng = np.random.default_rng(1)
    people = [sample(seed) for seed in range(30)]
    said = [caption(person, rng) for person in people]
    rows = [4, 4, 29, 0]
    taken = ClaimTable.of(said).take(rows).matrix(codes(people))
    np.testing.assert_array_equal(taken, claims_matrix([said[row] for row in rows], people))


def test_codes_are_places_of_values_and_minus_one_for_the_unseen() -> None:
    people = [sample(seed) for seed in range(100)]
    coded = codes(people)
    assert coded.shape == (100, len(KEYS))
    assert coded.dtype == np.int16
    for row, person in zip(coded, people, strict=True):
        for code, key in zip(row, KEYS, strict=True):
            seen = person.visible()[key]
            assert bool(code >= 0) is seen
            assert not seen or VALUES[key][code] == person.attributes[key]


def test_codes_of_another_width_are_refused() -> None:
    table = ClaimTable.of([caption(sample(0), np.random.default_rng(0))])
    with pytest.raises(ValueError, match=r"codes have shape \[n, 13\], not \[2, 4\]"):
        table.matrix(np.zeros((2, 4), dtype=np.int16))


def test_paraphrases_are_checkable_and_outside_the_grammar() -> None:
    assert len(PARAPHRASES) == len({p.text for p in PARAPHRASES}) == 40
    for paraphrase in PARAPHRASES:
        for claim in paraphrase.claims:
            assert claim.allowed < set(VALUES[claim.key])
    hits = claims_matrix(PARAPHRASES, [sample(seed) for seed in range(1500)]).sum(axis=0)
    assert (hits > 5).all()
    assert (hits < 1400).all()
    tables = repr([TRAIN_TABLE, TRAIN_WORDS, JUDGE_TABLE, JUDGE_WORDS]).lower()
    known = set(re.findall(r"[a-z]+", tables)) | {v.lower() for vs in VALUES.values() for v in vs}
    for paraphrase in PARAPHRASES:
        assert set(re.findall(r"[a-z]{3,}", paraphrase.text.lower())) - known, paraphrase.text
