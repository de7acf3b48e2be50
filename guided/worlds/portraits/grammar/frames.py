"""Sentence frames: from a plan (what to say, in which order and words) to the text of a caption."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from guided.worlds.portraits.grammar.free_phrases import (
    FREE_LEADS,
    FREE_STARTS,
    FREE_SUBJECTS,
    FREE_TABLE,
    FREE_WORDS,
)
from guided.worlds.portraits.grammar.judge_phrases import JUDGE_TABLE, JUDGE_WORDS
from guided.worlds.portraits.grammar.phrases import TRAIN_TABLE, TRAIN_WORDS, Role, Table, Words
from guided.worlds.portraits.grammar.terms import TOPICS, Term, kind

#: Topics that are worn and not had, so "wearing" and "wears" go with them.
WORN = frozenset({"glasses", "hat", "earrings", "shirt"})


class Mention(NamedTuple):
    """One phrase of a caption: what it says and which of the possible words say it.

    ``template`` and ``words`` (one for each key of the topic) are any whole numbers from 0 up;
    they are taken modulo the number of choices the term has.
    """

    topic: str
    term: Term
    role: Role
    template: int
    words: tuple[int, int]


class CaptionPlan(NamedTuple):
    """Everything the text of a caption follows from."""

    style: str
    frame: int
    lead: int
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class Frame:
    """A way to make one sentence (or list) of many phrases.

    ``leads`` open the text; ``role`` is the form its phrases take, ``background`` that of the
    background where it differs; with ``adjectives`` up to two phrases may stand before the noun;
    ``build`` joins lead and phrases.
    """

    leads: tuple[str, ...]
    role: Role
    build: Callable[[str, list[tuple[Mention, str]]], str]
    background: Role | None = None
    adjectives: bool = False


@dataclass(frozen=True, eq=False)
class CaptionStyle:
    """Which frames, templates and synonyms captions are made of."""

    name: str
    frames: tuple[Frame, ...]
    table: Table
    words: Words


_ARTICLE = re.compile(r"\b([Aa])(?= [aeiouAEIO])")


def with_articles(text: str) -> str:
    """The text with each "a" before a vowel as "an"."""
    return _ARTICLE.sub(r"\1n", text)


def _listed(parts: list[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _described(lead: str, adjectives: list[str], rest: list[str]) -> str:
    """A lead with a gap for adjectives ("a {} person") and phrases after it, comma by comma."""
    first = ", ".join(adjectives) + " " if adjectives else ""
    head = with_articles(lead.replace("{} ", first))
    return f"{head} {', '.join(rest)}" if rest else head


def _phrase(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "a smiling person with blue eyes, without glasses"; who and whose come next to the noun."""
    adjectives = [text for mention, text in parts if mention.role == "adjective"]
    rest = [text for mention, text in parts if mention.role == "modifier"]
    rest.sort(key=lambda text: not text.startswith("who"))
    return _described(lead, adjectives, rest)


def _grouped(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "a smiling person with blue eyes and a beard, wearing a cap, on a green background"."""
    adjectives = [text for mention, text in parts if mention.role == "adjective"]
    nouns = [(m, text) for m, text in parts if m.role == "noun"]
    had = [text for mention, text in nouns if mention.topic not in WORN]
    worn = [text for mention, text in nouns if mention.topic in WORN]
    groups = [f"with {_listed(had)}"] if had else []
    if worn:
        place = 0 if nouns[0][0].topic in WORN else len(groups)
        groups.insert(place, f"wearing {_listed(worn)}")
    groups += [text for mention, text in parts if mention.topic == "background"]
    return _described(lead, adjectives, groups)


def _series(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "blue eyes, a red shirt, no hat"."""
    return lead + ", ".join(text for _, text in parts)


def _sentences(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "This person has blue eyes and a beard and wears a cap. The background is green."."""
    said: list[str] = []
    bodies = [text for m, text in parts if m.topic not in WORN and m.topic != "background"]
    worn = [text for m, text in parts if m.topic in WORN]
    if bodies:
        said.append(f"{lead} has {_listed(bodies)}.")
    if worn:
        said.append(f"{'They wear' if bodies else f'{lead} wears'} {_listed(worn)}.")
    said += [f"{t[0].upper()}{t[1:]}." for m, t in parts if m.topic == "background"]
    if parts[0][0].topic == "background":
        said.insert(0, said.pop())
    return " ".join(said)


def _clauses(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "In this picture, the eyes are blue and there is no hat."."""
    text = lead + _listed([text for _, text in parts]) + "."
    return text[0].upper() + text[1:]


def _colon(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "Cartoon face: blue eyes; no hat."."""
    return f"{lead}{'; '.join(text for _, text in parts)}."


def _predicates(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "she has blue eyes and wears a cap"."""
    return f"{lead} {_listed([text for _, text in parts])}"


def _keywords(lead: str, parts: list[tuple[Mention, str]]) -> str:
    """ "woman blue eyes red cap", as people type into a search."""
    words = (re.sub(r"^(an?|the|some|one) ", "", text) for _, text in parts)
    return lead + " ".join(words)


TRAIN_LEADS = (
    "a {} person", "a {} person", "portrait of a {} person", "a portrait of a {} person",
    "a drawing of a {} person", "a {} character", "a cartoon of a {} person",
)  # fmt: skip

#: For the CLIP that guides.
TRAIN = CaptionStyle(
    "train",
    (
        Frame(TRAIN_LEADS, "modifier", _phrase, adjectives=True),
        Frame(TRAIN_LEADS, "noun", _grouped, background="modifier", adjectives=True),
        Frame(("someone", "a picture of someone", "this is someone"), "modifier", _phrase),
        Frame(("", "", "cartoon portrait, "), "noun", _series),
        Frame(("This person", "The person", "This character"), "noun", _sentences,
              background="clause"),
    ),
    TRAIN_TABLE,
    TRAIN_WORDS,
)  # fmt: skip

#: For a CLIP that judges: other frames and templates, so that it learns another language.
JUDGE = CaptionStyle(
    "judge",
    (
        Frame(("in this picture, ", "in the image, ", "as drawn, ", ""), "clause", _clauses),
        Frame(("you can see ", "the picture shows ", "we notice "), "noun", _clauses),
        Frame(("Cartoon face: ", "Avatar: ", "Details: "), "noun", _colon),
        Frame(("this is a figure who ", "the avatar ", "the figure ", "here is someone who "),
              "verb", _clauses),
    ),
    JUDGE_TABLE,
    JUDGE_WORDS,
)  # fmt: skip

_KEYWORD_STARTS = ("", "", "", "portrait ", "face ", "person ", "man ", "woman ", "girl ", "boy ")

#: Plain English, for the CLIP that guides, beside TRAIN.
FREE = CaptionStyle(
    "free",
    (
        Frame(FREE_LEADS, "modifier", _phrase, adjectives=True),
        Frame(FREE_LEADS, "noun", _grouped, background="modifier", adjectives=True),
        Frame(("somebody", "someone", "anybody", "a person"), "modifier", _phrase),
        Frame(FREE_SUBJECTS, "verb", _predicates),
        Frame(FREE_STARTS, "noun", _series),
        Frame(_KEYWORD_STARTS, "noun", _keywords),
    ),
    FREE_TABLE,
    FREE_WORDS,
)  # fmt: skip

STYLES: Mapping[str, CaptionStyle] = {style.name: style for style in (TRAIN, JUDGE, FREE)}


@cache
def templates(style: str, topic: str, term: Term, role: Role) -> tuple[str, ...]:
    """The templates that can say a term in a role; none if the role is not for it."""
    return STYLES[style].table[topic, kind(topic, term)].get(role, ())


def synonyms(style: str, key: str, sense: str) -> tuple[str, ...]:
    """The words of a style for a sense, the plainest first."""
    return STYLES[style].words.get(key, {}).get(sense, (sense,))


@cache
def phrase(style: str, mention: Mention) -> str:
    """The words of one mention."""
    topic, term, role, template, words = mention
    fill: dict[str, str] = {}
    for letter, key, sense, word in zip("ab", TOPICS[topic], term, words, strict=False):
        if sense is not None:
            options = synonyms(style, key, sense)
            fill[letter] = options[word % len(options)]
            fill[letter.upper()] = options[0]
    options = templates(style, topic, term, role)
    return with_articles(options[template % len(options)].format(**fill))


def realise(plan: CaptionPlan) -> str:
    """The text of a plan."""
    frame = STYLES[plan.style].frames[plan.frame]
    parts = [(mention, phrase(plan.style, mention)) for mention in plan.mentions]
    return frame.build(frame.leads[plan.lead % len(frame.leads)], parts)


def frame_role(frame: Frame, topic: str) -> Role:
    """The role a topic's phrase takes in a frame when it is not an adjective."""
    return frame.background if topic == "background" and frame.background else frame.role
