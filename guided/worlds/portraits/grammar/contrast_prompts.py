"""What else could be true: the texts a text competes with when a scorer is asked which is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
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

_ARTICLES = ("a", "the")
#: Where both know a phrase, it is that of the first.
_STYLES = ("train", "free")
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
    for start, end, style, mention in _mentions(text):
        for place, other in _contraries(mention):
            if wording := _wording(style, mention, other):
                said = with_articles(re.sub(r"\b([Aa])n\b", r"\1", text[:start]) + wording)
                found.setdefault((start, place), {})[said + text[end:]] = None
    facts = ([other for other in others if other != text] for others in found.values())
    return [others for others in facts if others]


def _mentions(text: str) -> Iterator[tuple[int, int, str, Mention]]:
    """Where phrases begin and end in a text, their style and what they say, the longest first, none
    within another.
    """
    words = [(m.start(), m.end(), m[0].lower()) for m in _WORD.finditer(text)]
    known, longest = _phrases(frozenset(_plain(word) for _, _, word in words))
    place = 0
    while place < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            part = words[place : place + length]
            styled = known.get(tuple(_plain(word) for _, _, word in part))
            if styled is not None:
                yield part[0][0], part[-1][1], *styled
                place += length - 1
                break
        place += 1


def _plain(word: str) -> str:
    return "a" if word == "an" else word


@lru_cache(maxsize=1024)
def _phrases(words: frozenset[str]) -> tuple[dict[Words, tuple[str, Mention]], int]:
    """Every phrase that may stand in a text of these words, with what it says, and the number of
    words of the longest.
    """
    known: dict[Words, tuple[str, Mention]] = {}
    for style, topic, term, role, template, needed in _templates():
        if needed <= words:
            for mention in _wordings(style, Mention(topic, term, role, template, (0, 0)), words):
                wording = tuple(map(_plain, _WORD.findall(phrase(style, mention).lower())))
                known.setdefault(wording, (style, mention))
                if wording[0] in _ARTICLES and len(wording) > 1:  # "red hat", as searches have it
                    known.setdefault(wording[1:], (style, mention))
    return known, max(map(len, known), default=0)


@cache
def _templates() -> list[tuple[str, str, Term, Role, int, frozenset[str]]]:
    """Every template of every term, and the words that stand in it whatever fills its gaps."""
    every = []
    for style, topic in product(_STYLES, TOPICS):
        for term, role in product(terms(topic), _ROLES):
            for number, template in enumerate(templates(style, topic, term, role)):
                fixed = re.sub(r"\S*\{.\}\S*", " ", template).lower()
                needed = frozenset(map(_plain, _WORD.findall(fixed))).difference(_ARTICLES)
                every.append((style, topic, term, role, number, needed))
    return every


def _wordings(style: str, mention: Mention, words: frozenset[str]) -> Iterator[Mention]:
    """A mention in its plainest words, and in all others that are made of some words."""
    options = []
    for key, sense in zip(TOPICS[mention.topic], mention.term, strict=True):
        known = [] if sense is None else synonyms(style, key, sense)
        options.append([n for n, each in enumerate(known) if not n or _split(each) <= words] or [0])
    for first, second in product(*[*options, [0]][:2]):
        yield mention._replace(words=(first, second))


@cache
def _split(text: str) -> frozenset[str]:
    return frozenset(map(_plain, _WORD.findall(text.lower())))


def _contraries(mention: Mention) -> list[tuple[int, Term]]:
    """The terms that differ in one fact, and its place, and contradict the mention's."""
    topic, term = mention.topic, mention.term
    return [
        (place, other)
        for place, other in neighbours(topic, term)
        if not allowed(TOPICS[topic][place], str(term[place]))
        & allowed(TOPICS[topic][place], str(other[place]))
    ]


def _wording(style: str, mention: Mention, other: Term) -> str:
    """Another term in the mention's role, in the plainest words; nothing if it has no such form."""
    options = templates(style, mention.topic, other, mention.role)
    if not options:
        return ""
    template = mention.template if len(options) > mention.template else 0
    return phrase(style, Mention(mention.topic, other, mention.role, template, (0, 0)))
