"""Everyday words for judging: complete, possible, and none of training's sentences."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import guided.worlds.portraits
from guided.worlds.portraits import KEYS, UNSEEN_WORDS, VALUES
from guided.worlds.portraits.grammar.frames import TRAIN, Mention, phrase, templates
from guided.worlds.portraits.grammar.free_words import (
    FREE_EDITS,
    FREE_PARAPHRASES,
    FREE_PROMPTS,
)
from guided.worlds.portraits.grammar.paraphrases import PARAPHRASES, Paraphrase
from guided.worlds.portraits.grammar.terms import TOPICS, terms
from guided.worlds.portraits.judging.edit_cases import FREE_WORD_EDITS, cases
from guided.worlds.portraits.judging.text_image_figures import adherence

PROMPTS = [text for by_value in FREE_PROMPTS.values() for texts in by_value.values()
           for text in texts]  # fmt: skip
EVERY = [*(said.text for said in (*FREE_PARAPHRASES, *FREE_EDITS)), *PROMPTS]
Words = tuple[str, ...]


def words_of(text: str) -> Words:
    return tuple(text.lower().replace(",", " ").replace(".", " ").replace(";", " ").split())


@cache
def pieces() -> frozenset[Words]:
    """Whatever training's captions are put together of: leads, phrases, and what joins them."""
    found = {("and",), ("with",), ("wearing",), ("has",), ("wears",), ("they", "wear")}
    for frame in TRAIN.frames:
        found |= {words_of(lead.replace("{} ", "")) for lead in frame.leads}
        found |= {words_of(part) for lead in frame.leads for part in lead.split("{}")}
    for topic in TOPICS:
        for term in terms(topic):
            for role in ("adjective", "modifier", "noun", "verb", "clause"):
                found |= set(_phrases(topic, term, role))
    return frozenset(piece for piece in found if piece)


def _phrases(topic, term, role):
    count = len(templates(TRAIN.name, topic, term, role))
    for template in range(count):
        for first in range(3):
            for second in range(3):
                mention = Mention(topic, term, role, template, (first, second))
                yield words_of(phrase(TRAIN.name, mention))


def made_of_pieces(text: str) -> bool:
    words = words_of(text)
    reached = {0}
    for start in range(len(words)):
        if start in reached:
            reached |= {
                end for end in range(start + 1, len(words) + 1) if words[start:end] in pieces()
            }
    return len(words) in reached


def test_a_caption_of_training_is_known_as_one() -> None:
    assert made_of_pieces("a smiling person with blue eyes, wearing a red cap, without a beard")
    assert made_of_pieces("This person has long red hair. They wear a green top reading FOX.")
    assert made_of_pieces("a portrait of a blue-eyed person, in a plain shirt")


@pytest.mark.parametrize("text", EVERY)
def test_no_text_is_put_together_of_training_s_phrases(text: str) -> None:
    assert not made_of_pieces(text)


def test_texts_are_many_short_and_each_there_once() -> None:
    assert len(FREE_PARAPHRASES) >= 110
    assert len(FREE_EDITS) == 24
    for said in FREE_PARAPHRASES:
        assert 1 <= len(said.claims) <= 3
        assert 2 <= len(said.text.split()) <= 12
    texts = [said.text.lower() for said in (*FREE_PARAPHRASES, *PARAPHRASES)]
    assert len(set(texts)) == len(texts)


def test_every_value_is_named_absence_too() -> None:
    named = Counter((c.key, v) for said in FREE_PARAPHRASES for c in said.claims for v in c.allowed)
    for key in KEYS:
        for value in VALUES[key]:
            if value in UNSEEN_WORDS:
                assert (key, value) not in named
            else:
                assert named[key, value] >= (1 if key == "sign" else 2), (key, value)


def test_no_text_has_a_word_kept_from_training() -> None:
    for text in EVERY:
        assert not set(UNSEEN_WORDS) & set(text.split())


@pytest.mark.parametrize("said", FREE_PARAPHRASES, ids=lambda said: said.text)
def test_a_text_is_true_of_some_portrait(said: Paraphrase) -> None:
    assert all(claim.allowed <= set(VALUES[claim.key]) for claim in said.claims)
    assert len(adherence(said.claims, 0, 1, "val")) == 1


def test_prompts_say_every_value_in_two_ways_of_their_own() -> None:
    assert set(FREE_PROMPTS) == set(KEYS) - {"sign"}
    for key, by_value in FREE_PROMPTS.items():
        assert tuple(by_value) == VALUES[key]
        texts = [text for both in by_value.values() for text in both]
        assert len(texts) == 2 * len(VALUES[key]) == len(set(texts))


@pytest.mark.parametrize("edit", FREE_WORD_EDITS, ids=lambda edit: edit.name)
def test_a_free_edit_is_possible_and_not_done_already(edit) -> None:
    for case in cases(edit, 2):
        assert not edit.reached(case.source.attributes)
        assert case.truths
        assert all(edit.reached(after.attributes) for after in case.truths)


def test_edits_are_spread_over_the_attributes() -> None:
    asked = Counter(claim.key for said in FREE_EDITS for claim in said.claims)
    assert set(asked) == set(KEYS) - {"sign"}
    assert max(asked.values()) <= 4


def test_only_judges_import_them() -> None:
    package = Path(guided.worlds.portraits.__file__).parent
    users = [
        file for file in package.rglob("*.py") if "grammar.free_words" in file.read_text("utf-8")
    ]
    assert users
    assert {file.relative_to(package).parts[0] for file in users} == {"judging"}
