from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.worlds.portraits.attributes import KEYS, VALUES, Portrait
from guided.worlds.portraits.grammar.names import name
from guided.worlds.portraits.grammar.questions import FAMILIES, NAMED, Question, questions
from guided.worlds.portraits.odds import THINGS, presence_odds, same_odds, value_odds
from guided.worlds.portraits.splits import SPLITS, sample


def asked(seeds: range) -> list[Question]:
    rng = np.random.default_rng(seeds.start)
    return [question for seed in seeds for question in questions(sample(seed), rng)]


@pytest.fixture(scope="module")
def learnt() -> list[Question]:
    return asked(range(3000))


@pytest.fixture(scope="module")
def judged() -> list[Question]:
    return asked(range(3000, 4500))


#: How much a blind guess may be right, family by family; chance is in the comment.
BOUNDS = {
    "yes-no": 0.56, "negation": 0.57, "disjunction": 0.57, "conjunction": 0.6,  # 1/2
    "comparison": 0.62, "either-or": 0.56,  # 1/2, and few questions of the first
    "color": 0.2, "reading": 0.1,  # 1/8 to 1/5, 1/24
    "which": 0.3, "location": 0.36,  # 1/8 to 1/3, 1/25 to 1/2
    "count": 0.38, "odd-one": 0.42, "spelling": 0.22,  # 1/4 to 1/3, 1/3, 1/17 to 1/3
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_guessing_blind_does_not_pay(
    family: str, learnt: list[Question], judged: list[Question]
) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in learnt:
        answers[question.question][question.answer] += 1
    mine = [question for question in judged if question.family == family]
    assert len(mine) > 100
    right = sum(q.answer == max(answers[q.question] or {"": 0}, key=answers[q.question].__getitem__)
                for q in mine)  # fmt: skip
    assert right / len(mine) <= BOUNDS[family]


def test_yes_is_said_half_the_time(judged: list[Question]) -> None:
    for family in ("yes-no", "negation", "conjunction", "disjunction", "comparison"):
        answers = [question.answer for question in judged if question.family == family]
        assert set(answers) == {"yes", "no"}
        assert 0.42 < answers.count("yes") / len(answers) < 0.58


def told(portrait: Portrait, question: Question) -> str | None:
    """The answer worked out anew from the words of the question, for the families of things."""
    text = question.question
    there = {words for key, words in NAMED.items() if portrait.attributes[key] != "none"}
    if question.family in {"count", "odd-one"}:
        listed = text.split(": ")[1].rstrip("?").split(", ")
        here = [words for words in listed if words in there]
        if question.family == "count":
            return str(len(here))
        wanted = here if "can be seen" in text else [w for w in listed if w not in here]
        return wanted[0] if len(wanted) == 1 else None
    named = [words for words in NAMED.values() if words in text]
    here = [words for words in named if words in there]
    if question.family == "conjunction":
        return "yes" if len(here) == 2 else "no"
    return "yes" if here else "no"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**8), st.sampled_from(SPLITS))
def test_answers_are_true(seed: int, split: str) -> None:
    person = sample(seed, split)
    seen, have = person.visible(), person.attributes
    shown = {name(key, str(have[key])) for key in KEYS if seen[key]}
    made = questions(person, np.random.default_rng(seed))
    assert len({question.family for question in made}) == len(made)
    for question in made:
        text, answer = question.question, question.answer
        if question.family in {"count", "odd-one", "conjunction", "disjunction"}:
            assert answer == told(person, question), (question, have)
        elif question.family in {"color", "which", "either-or", "reading"}:
            assert answer in shown, (question, have)
        elif question.family == "location":
            assert answer in shown | {"nothing"}, (question, have)
        elif question.family == "yes-no":
            hits = [k for k in KEYS if seen[k] and asks_about(text, k)]
            assert hits, question
            matches = any(value_in(text, k, str(have[k])) for k in hits)
            assert answer == ("yes" if matches else "no"), (question, have)
        elif question.family == "negation":
            (key,) = (k for k, words in NAMED.items() if words.split()[-1] in text
                      or (k == "sign" and "word" in text))  # fmt: skip
            assert answer == ("yes" if have[key] == "none" else "no")
        elif question.family == "comparison":
            assert all(seen[key] for key in compared(text))
            one, other = compared(text)
            assert answer == ("yes" if have[one] == have[other] else "no")
        else:
            word = str(have["sign"])
            parts = {"first": word[0], "last": word[-1], "many": str(len(word))}
            assert answer == next(part for clue, part in parts.items() if clue in text)


WORDS_OF_KEYS = {
    "hair_color": "Is the hair ", "hair_style": "Is the hairstyle ", "skin": "Is the skin ",
    "eyes": "Are the eyes ", "expression": "Is the face ", "glasses": "Does the person wear ",
    "hat": "Is there a ", "hat_color": "Is the hat ", "beard": "Does the person have a ",
    "earrings": "Are there earrings", "background": "Is the background ",
    "clothing": "Is the shirt ", "sign": "Does the shirt say ",
}  # fmt: skip


def asks_about(text: str, key: str) -> bool:
    return text.startswith(WORDS_OF_KEYS[key])


def value_in(text: str, key: str, value: str) -> bool:
    rest = text.removeprefix("Are there ").removeprefix(WORDS_OF_KEYS[key])
    return rest.removesuffix("?").removesuffix(" on the head") == name(key, value)


def compared(text: str) -> tuple[str, str]:
    parts = {"shirt": "clothing", "background": "background", "hair": "hair_color",
             "hat": "hat_color", "eyes": "eyes"}  # fmt: skip
    words = text.removeprefix("Do the ").split(" have the same")[0].split(" and the ")
    return parts[words[0]], parts[words[1]]


def test_questions_repeat_with_the_stream() -> None:
    person = sample(3)
    first = questions(person, np.random.default_rng(4))
    assert first == questions(person, np.random.default_rng(4))
    assert len({tuple(questions(person, np.random.default_rng(s))) for s in range(8)}) == 8


def test_odds_are_those_of_the_training_split() -> None:
    people = [sample(seed) for seed in range(3000)]
    for key in KEYS:
        seen = [p.attributes[key] for p in people if p.visible()[key]]
        for value in VALUES[key]:
            assert value_odds(key)[value] == pytest.approx(seen.count(value) / len(seen), abs=0.035)
    both = [p.attributes["hat"] != "none" and p.attributes["beard"] != "none" for p in people]
    assert presence_odds(("hat", "beard"))[True, True] == pytest.approx(np.mean(both), abs=0.03)
    for keys in [("hat",), THINGS]:
        assert sum(presence_odds(keys).values()) == pytest.approx(1)
    assert same_odds("clothing", "hat_color") == 0
