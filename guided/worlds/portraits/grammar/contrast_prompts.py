"""What else could be true: the texts a text competes with when a scorer is asked which is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import product

from guided.worlds.portraits.grammar.frames import (
    Mention,
    phrase,
    synonyms,
    templates,
    with_articles,
)
from guided.worlds.portraits.grammar.phrases import Role
from guided.worlds.portraits.grammar.terms import TOPICS, Term, allowed, neighbours, terms

_STYLE = "train"
_ROLES: tuple[Role, ...] = ("adjective", "modifier", "noun", "verb", "clause")
_WORD = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*")

Words = tuple[str, ...]


def contrast_prompts(text: str) -> list[str]:
    """The text with one of its facts changed to another value, for every fact and value.

    Facts are found by the phrases that captions are made of; a text with none has no rivals.

    >>> contrast_prompts("a person who is bald")[0]
    'a person with short hair'
    >>> contrast_prompts("a house")
    []
    """
    return list(
        dict.fromkeys(other for others in contrast_prompts_by_attribute(text) for other in others)
    )


def contrast_prompts_by_attribute(text: str) -> list[list[str]]:
    """The rivals of a text, those that change the same fact together.

    >>> text = "a smiling person, on a blue background"
    >>> [len(others) for others in contrast_prompts_by_attribute(text)]
    [4, 7]
    """
    found: dict[tuple[int, int], dict[str, None]] = {}
    for start, end, mention in _mentions(text):
        for place, other in _contraries(mention):
            if wording := _wording(mention, other):
                said = with_articles(re.sub(r"\b([Aa])n\b", r"\1", text[:start]) + wording)
                found.setdefault((start, place), {})[said + text[end:]] = None
    facts = ([other for other in others if other != text] for others in found.values())
    return [others for others in facts if others]


def _mentions(text: str) -> Iterator[tuple[int, int, Mention]]:
    """Where phrases begin and end in a text, the longest first, none within another."""
    known, longest = _phrases()
    words = [(m.start(), m.end(), m[0].lower()) for m in _WORD.finditer(text)]
    place = 0
    while place < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            part = words[place : place + length]
            mention = known.get(tuple(_plain(word) for _, _, word in part))
            if mention is not None:
                yield part[0][0], part[-1][1], mention
                place += length - 1
                break
        place += 1


def _plain(word: str) -> str:
    return "a" if word == "an" else word


@cache
def _phrases() -> tuple[dict[Words, Mention], int]:
    """Every phrase as words with what it says, and the number of words of the longest."""
    known: dict[Words, Mention] = {}
    for topic in TOPICS:
        for term in terms(topic):
            for mention in _wordings(topic, term):
                words = _WORD.findall(phrase(_STYLE, mention).lower())
                known.setdefault(tuple(map(_plain, words)), mention)
    return known, max(map(len, known))


def _wordings(topic: str, term: Term) -> Iterator[Mention]:
    counts = [
        1 if sense is None else len(synonyms(_STYLE, key, sense))
        for key, sense in zip(TOPICS[topic], term, strict=True)
    ]
    for role in _ROLES:
        for template in range(len(templates(_STYLE, topic, term, role))):
            for first, second in product(*(range(count) for count in (*counts, 1)[:2])):
                yield Mention(topic, term, role, template, (first, second))


def _contraries(mention: Mention) -> list[tuple[int, Term]]:
    """The terms that differ in one fact, and its place, and contradict the mention's."""
    topic, term = mention.topic, mention.term
    return [
        (place, other)
        for place, other in neighbours(topic, term)
        if not allowed(TOPICS[topic][place], str(term[place]))
        & allowed(TOPICS[topic][place], str(other[place]))
    ]


def _wording(mention: Mention, other: Term) -> str:
    """Another term in the mention's role, in the plainest words; nothing if it has no such form."""
    options = templates(_STYLE, mention.topic, other, mention.role)
    if not options:
        return ""
    template = mention.template if len(options) > mention.template else 0
    return phrase(_STYLE, Mention(mention.topic, other, mention.role, template, (0, 0)))
