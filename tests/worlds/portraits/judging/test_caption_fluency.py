from __future__ import annotations

import math

import numpy as np
import pytest

from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.judging.caption_fluency import (
    WordModel,
    judge_text,
    mean_loss,
    pieces_of,
)
from guided.worlds.portraits.splits import sample


def test_probabilities_by_hand() -> None:
    model = WordModel(["a b", "a c"], order=2, discount=0.5)
    assert model.words == {"a", "b", "c", "<end>"}
    one = [(2 - 0.5) / 6 + 0.5 * 4 / 6 / 5, (1 - 0.5) / 6 + 0.5 * 4 / 6 / 5]
    assert model.probability("a", []) == pytest.approx(one[0])
    assert model.probability("b", ["a"]) == pytest.approx(0.5 / 2 + 0.5 * one[1])
    assert model.losses("a b")[1] == pytest.approx(-math.log(model.probability("b", ["a"])))


@pytest.mark.parametrize("context", [[], ["with"], ["with", "brown"], ["never", "heard", "of"]])
def test_probabilities_sum_to_one(model: WordModel, context: list[str]) -> None:
    known = [*model.words, "a word that is not known"]
    assert sum(model.probability(word, context) for word in known) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def model() -> WordModel:
    return WordModel(judge_text(3000))


def test_broken_sentences_are_less_fluent(model: WordModel) -> None:
    rng = np.random.default_rng(1)
    true = [caption(sample(seed), rng).text for seed in range(60)]
    mixed = [" ".join(rng.permutation(text.split())) for text in true]
    cut = [text.rsplit(" ", 1)[0] for text in true if " " in text]
    assert mean_loss(model, true) < 2.5
    assert mean_loss(model, mixed) > 2 * mean_loss(model, true)
    assert mean_loss(model, cut) > 1.05 * mean_loss(model, true)


def test_unknown_words_and_no_words(model: WordModel) -> None:
    (*_, zebra, _) = model.losses("a person with zebras")
    assert math.isfinite(zebra)
    assert zebra > 5
    assert len(model.losses("")) == 1
    with pytest.raises(ValueError, match="no text"):
        WordModel([])


def test_marks_count_and_signs_keep_their_capitals() -> None:
    assert pieces_of("This person has a red-haired cat, OK.") == [
        "this", "person", "has", "a", "red-haired", "cat", ",", "OK", ".",
    ]  # fmt: skip
