"""What can be said of a portrait: topics, the terms of each, and the claims a term makes.

A topic is a part of the picture that one phrase speaks of ("long red hair"). A term fills the
topic's keys with senses, None where a key is left open: ``("long", "red")``, ``(None, "red")``.
A sense is a value of the world or a wider word that covers several values.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from guided.worlds.portraits.attributes import KEYS, VALUES
from guided.worlds.portraits.grammar.claims import Claim

Term = tuple[str | None, ...]

TOPICS: dict[str, tuple[str, ...]] = {
    "hair": ("hair_style", "hair_color"),
    "skin": ("skin",),
    "eyes": ("eyes",),
    "expression": ("expression",),
    "glasses": ("glasses",),
    "hat": ("hat", "hat_color"),
    "beard": ("beard",),
    "earrings": ("earrings",),
    "background": ("background",),
    "shirt": ("clothing", "sign"),
}
TOPIC_OF = {key: topic for topic, keys in TOPICS.items() for key in keys}

#: Words wider than a value. "Glasses" covers dark ones too, so it is the contrary of "no glasses".
WIDE: dict[str, dict[str, tuple[str, ...]]] = {
    "expression": {"unsmiling": ("neutral", "frown", "surprised")},
    "glasses": {"any": ("round", "square", "sunglasses")},
    "hat": {"any": ("beanie", "cap", "tophat")},
    "beard": {
        "bearded": ("goatee", "full"),
        "hairy": ("moustache", "goatee", "full"),
        "unbearded": ("none", "moustache"),
    },
}
#: Senses that deny something.
NEGATIVE = frozenset({"none", "unsmiling", "unbearded"})

#: Hair styles that are a thing one has ("a bun") and not a manner ("long").
NOUN_STYLES = frozenset({"bob", "bun", "ponytail"})


def allowed(key: str, sense: str) -> frozenset[str]:
    """The values of a key that a sense is true of."""
    return frozenset(WIDE.get(key, {}).get(sense, (sense,)))


@cache
def claims_of(topic: str, term: Term) -> tuple[Claim, ...]:
    """The claims that saying a term makes."""
    said = zip(TOPICS[topic], term, strict=True)
    return tuple(Claim(key, allowed(key, sense)) for key, sense in said if sense is not None)


def is_term(topic: str, term: Term) -> bool:
    """Whether a term makes sense: no colour of no hat or of no hair, and something is said."""
    if topic == "hair":
        return term != (None, None) and (term[0] != "bald" or term[1] is None)
    if topic == "hat":
        return term[0] is not None and (term[0] != "none" or term[1] is None)
    return any(sense is not None for sense in term)


def senses(key: str) -> tuple[str, ...]:
    """All senses of a key: its values, then the wider words."""
    return (*VALUES[key], *WIDE.get(key, {}))


def terms(topic: str) -> list[Term]:
    """Every term of a topic."""
    options = [(*senses(key), None) if len(TOPICS[topic]) > 1 else senses(key)
               for key in TOPICS[topic]]  # fmt: skip
    return [term for term in product(*options) if is_term(topic, term)]


@cache
def kind(topic: str, term: Term) -> str:
    """The grammatical kind of a term, which decides the templates that can say it."""
    if topic == "hair":
        style, color = term
        if style == "bald":
            return "bald"
        manner = "" if style is None else "noun" if style in NOUN_STYLES else "style"
        return manner + ("color" if color else "")
    if topic == "hat":
        return "none" if term[0] == "none" else "kindcolor" if term[1] else "kind"
    if topic == "shirt":
        color, word = term
        said = "" if word is None else "plain" if word == "none" else "word"
        return ("color" if color else "") + said
    sense = term[0]
    assert sense is not None
    return "any" if topic in {"skin", "eyes", "background"} else sense


@cache
def neighbours(topic: str, term: Term) -> tuple[tuple[int, Term], ...]:
    """Terms that say another thing of exactly one key, with the place of that key."""
    found: list[tuple[int, Term]] = []
    for place, key in enumerate(TOPICS[topic]):
        if term[place] is None:
            continue
        for sense in senses(key):
            other = (*term[:place], sense, *term[place + 1 :])
            if sense != term[place] and is_term(topic, other):
                found.append((place, other))
    return tuple(found)


assert set(TOPIC_OF) == set(KEYS)
