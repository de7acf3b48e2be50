"""What a sentence claims of a portrait, read back with the same grammar that writes captions.

Phrases of both caption styles are known with what they claim; a sentence is cut into phrases so
that the fewest words are left unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

from guided.worlds.portraits.grammar.claims import Claim
from guided.worlds.portraits.grammar.frames import Mention, phrase, synonyms, templates
from guided.worlds.portraits.grammar.phrases import Role
from guided.worlds.portraits.grammar.terms import TOPICS, Term, claims_of, terms

#: Written captions are those of these styles; plain English is no measure of them.
_STYLES = ("train", "judge")
_ROLES: tuple[Role, ...] = ("adjective", "modifier", "noun", "verb", "clause")
#: Words that claim nothing by themselves and belong to the frames around phrases.
_FRAME = frozenset(
    {
        "a", "an", "and", "the", "of", "with", "wearing", "in", "on", "who", "this", "is", "that",
        "person", "character", "someone", "portrait", "drawing", "cartoon", "picture", "image",
        "has", "have", "they", "wear", "wears", "face", "you", "can", "see", "shows", "we",
        "notice", "figure", "avatar", "here", "details", "as", "drawn",
    }
)  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*")

Words = tuple[str, ...]


@dataclass(frozen=True)
class ParsedCaption:
    """The claims found in a text, each once, and the share of words that no phrase explains."""

    claims: tuple[Claim, ...]
    unread: float

    @property
    def keys(self) -> frozenset[str]:
        """The attributes the text speaks of."""
        return frozenset(claim.key for claim in self.claims)


def words_of(text: str) -> Words:
    """The words of a text in lower case; words in capitals (on shirts) keep theirs.

    >>> words_of("A shirt that says LOVE, red-haired.")
    ('a', 'shirt', 'that', 'says', 'LOVE', 'red-haired')
    """
    found = _WORD.findall(text)
    return tuple(word if len(word) > 1 and word.isupper() else word.lower() for word in found)


def read_caption(text: str) -> ParsedCaption:
    """What a caption in any of the known styles claims."""
    known, _ = _phrases()
    words = words_of(text)
    claims: dict[Claim, None] = {}
    unread = place = 0
    for length in _cut(words):
        said = known.get(words[place : place + length])
        if said is not None:
            claims.update(dict.fromkeys(said))
        elif words[place] not in _FRAME:
            unread += 1
        place += length
    return ParsedCaption(tuple(claims), unread / max(len(words), 1))


def _cut(words: Words) -> list[int]:
    """The lengths of pieces, phrases or single words, that leave the least unread.

    Among equals the fewest pieces win, so a long phrase beats the short ones in it.
    """
    known, longest = _phrases()
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for place in range(len(words) - 1, -1, -1):
        options = []
        for length in range(1, min(longest, len(words) - place) + 1):
            unread, pieces, _ = best[-length]
            if words[place : place + length] in known:
                options.append((unread, pieces + 1, length))
            elif length == 1:
                options.append((unread + (words[place] not in _FRAME), pieces + 1, 1))
        best.append(min(options))
    lengths, place = [], 0
    while place < len(words):
        lengths.append(best[len(words) - place][2])
        place += lengths[-1]
    return lengths


@cache
def _phrases() -> tuple[dict[Words, tuple[Claim, ...]], int]:
    """Every phrase as words with its claims, and the number of words of the longest."""
    known: dict[Words, tuple[Claim, ...]] = {}
    for style, topic in product(_STYLES, TOPICS):
        for term in terms(topic):
            for text in _sayings(style, topic, term):
                known.setdefault(words_of(text), claims_of(topic, term))
    return known, max(map(len, known))


def _sayings(style: str, topic: str, term: Term) -> Iterator[str]:
    """Every wording of one term."""
    counts = [
        1 if sense is None else len(synonyms(style, key, sense))
        for key, sense in zip(TOPICS[topic], term, strict=True)
    ]
    words = [range(count) for count in (*counts, 1)[:2]]
    for role in _ROLES:
        for template in range(len(templates(style, topic, term, role))):
            for first, second in product(*words):
                yield phrase(style, Mention(topic, term, role, template, (first, second)))
