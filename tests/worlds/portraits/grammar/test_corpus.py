from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from guided.language.bpe import END_OF_TEXT, learn_vocabulary
from guided.worlds.portraits.attributes import VALUES, visible
from guided.worlds.portraits.grammar.corpus import document, uniform_person
from guided.worlds.portraits.grammar.plain import plain_sentence


@pytest.fixture(scope="module")
def people() -> list[dict[str, str | None]]:
    rng = np.random.default_rng(0)
    return [uniform_person(rng).attributes for _ in range(4000)]


@pytest.mark.parametrize("key", sorted(VALUES))
def test_every_value_that_can_be_seen_is_as_likely(
    people: list[dict[str, str | None]], key: str
) -> None:
    values = [value for value in VALUES[key] if value != "none"]
    counts = Counter(p[key] for p in people if visible(p)[key] and p[key] in values)
    share = np.array([counts[value] for value in values]) / sum(counts.values())
    noise = 0.5 * np.sqrt(len(values) / sum(counts.values()))
    assert 0.5 * np.abs(share - 1 / len(values)).sum() < 1.5 * noise


@pytest.mark.parametrize("key", ["hat", "sign"])
def test_half_of_all_wear_hats_and_words(people: list[dict[str, str | None]], key: str) -> None:
    assert abs(sum(p[key] == "none" for p in people) / len(people) - 0.5) < 0.03


def test_hats_never_have_the_colour_of_the_clothing() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        person = uniform_person(rng).attributes
        assert person["hat_color"] != person["clothing"]
        assert (person["hat_color"] is None) == (person["hat"] == "none")


def test_documents_are_a_function_of_seed_and_index() -> None:
    texts = [document(3, index) for index in range(1000)]
    assert texts[14] == document(3, 14)
    assert len(set(texts)) > 900
    assert sum(document(4, index) == text for index, text in enumerate(texts)) < 5
    assert 0.15 < sum(text[0].isupper() and text.endswith(".") for text in texts) / 1000 < 0.45


def test_plain_sentences_are_english() -> None:
    rng = np.random.default_rng(2)
    texts = [plain_sentence(rng) for _ in range(3000)]
    assert len(set(texts)) > 2900
    for text in texts:
        assert text[0].isupper()
        assert text.endswith(".")
        assert "  " not in text
        for before, after in zip(text.lower().split(), text.lower().split()[1:], strict=False):
            if before == "an":
                assert after[0] in "aeiou", text
            if before == "a" and after != "few":
                assert after[0] not in "aeiou", text


def test_a_vocabulary_knows_every_byte_and_ends_with_the_end() -> None:
    tokenizer = learn_vocabulary([document(0, index) for index in range(200)], 400)
    assert tokenizer.get_vocab_size() == 400
    assert tokenizer.token_to_id(END_OF_TEXT) == 399
    assert tokenizer.decode(tokenizer.encode("ñ 漢 🦊").ids) == "ñ 漢 🦊"
    with pytest.raises(ValueError, match="at least 257"):
        learn_vocabulary(["a"], 100)
