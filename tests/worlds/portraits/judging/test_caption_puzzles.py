from __future__ import annotations

import numpy as np

from guided.worlds.portraits.attributes import UNSEEN_WORDS
from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.judging.caption_puzzles import (
    CARRIED,
    sign_named,
    sign_people,
    sum_puzzles,
)
from guided.worlds.portraits.splits import held_out_pairs_of


def test_sums_differ_in_what_is_carried_alone() -> None:
    puzzles = sum_puzzles(40, 100)
    assert {puzzle.key for puzzle in puzzles} == set(CARRIED)
    for puzzle in puzzles:
        having, lacking = puzzle.having.attributes, puzzle.lacking.attributes
        changed = {key for key in having if having[key] != lacking[key]}
        assert changed in ({puzzle.key}, {"hat", "hat_color"})
        assert having[puzzle.key] == puzzle.value != lacking[puzzle.key]
        assert puzzle.other.attributes[puzzle.key] != puzzle.value
        answer = puzzle.other.with_attribute(puzzle.key, puzzle.value)
        for person in (puzzle.having, puzzle.lacking, puzzle.other, answer):
            assert not held_out_pairs_of(person.attributes)
        assert answer.visible()[puzzle.key]
    assert sum_puzzles(3, 100) == puzzles[:3]


def test_an_answer_names_the_value_and_the_other_person_does_not() -> None:
    rng = np.random.default_rng(0)
    for puzzle in sum_puzzles(40, 500):
        answer = puzzle.other.with_attribute(puzzle.key, puzzle.value)
        about = [puzzle.key]
        said = [caption(answer, rng, about=about, negation=0).text for _ in range(4)]
        assert any(puzzle.named_by(text) for text in said), (puzzle.key, puzzle.value, said)
        own = caption(puzzle.other, rng, count=13, negation=1.0).text
        assert not puzzle.named_by(own), (puzzle.key, puzzle.value, own)


def test_signs() -> None:
    for unseen in (False, True):
        people = sign_people(12, 0, unseen=unseen)
        words = {str(person.attributes["sign"]) for person in people}
        assert words.isdisjoint(UNSEEN_WORDS) != unseen
        assert "none" not in words
        for person in people:
            word = person.attributes["sign"]
            assert sign_named(f"a person in a shirt that says {word}, smiling", person)
            assert not sign_named("a person in a shirt that says", person)
            assert not sign_named("LOVE and JAZZ and HOPE and PIE", person)
