"""Captions that know what they claim: true ones, and near misses that differ in one thing or two.

A caption is made from a plan, so the same wording can be told of another value:

>>> import numpy as np
>>> from guided.worlds.portraits.splits import sample
>>> person, rng = sample(3), np.random.default_rng(0)
>>> said = caption(person, rng, count=4)
>>> said.is_true(person.attributes)
True
>>> edited(said, person, rng).is_true(person.attributes)
False
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guided.worlds.portraits.attributes import KEYS, UNSEEN_WORDS, Portrait, check_value
from guided.worlds.portraits.grammar.claims import Claim, all_true
from guided.worlds.portraits.grammar.frames import (
    STYLES,
    TRAIN,
    CaptionPlan,
    CaptionStyle,
    Mention,
    frame_role,
    realise,
    templates,
)
from guided.worlds.portraits.grammar.terms import (
    NEGATIVE,
    TOPIC_OF,
    TOPICS,
    WIDE,
    Term,
    allowed,
    claims_of,
    neighbours,
)

Draw = Callable[[], float]
_DRAWS = 128  # more than the longest caption takes: 13 keys to shuffle, then 7 a mention
_DENIABLE = {"expression": "unsmiling", "beard": "unbearded"}


@dataclass(frozen=True)
class Caption:
    """A text, what it claims of a portrait, and the plan it was made from."""

    text: str
    claims: tuple[Claim, ...]
    plan: CaptionPlan

    def is_true(self, attributes: Mapping[str, str | None]) -> bool:
        """Whether all claims hold and can be seen in the picture of this person."""
        return all_true(self.claims, attributes)

    @property
    def mentioned(self) -> frozenset[str]:
        """The attribute keys the text speaks of."""
        return frozenset(claim.key for claim in self.claims)

    @property
    def denies(self) -> bool:
        """Whether something is said not to be there ("without glasses", "not smiling")."""
        return any(not NEGATIVE.isdisjoint(mention.term) for mention in self.plan.mentions)


def of_plan(plan: CaptionPlan) -> Caption:
    """The caption of a plan."""
    claims = [claim for mention in plan.mentions for claim in claims_of(mention[0], mention[1])]
    return Caption(realise(plan), tuple(claims), plan)


def _draws(rng: np.random.Generator) -> Draw:
    """A cheap source of numbers in [0, 1): one call of numpy for a whole caption."""
    numbers: list[float] = rng.random(_DRAWS).tolist()
    return iter(numbers).__next__


def _sense(key: str, value: str, draw: Draw, negation: float) -> str:
    """The sense in which to say a value: mostly itself, now and then a wider word or a denial."""
    chance, other = draw(), draw()
    denial = _DENIABLE.get(key)
    if denial and chance < negation and value in WIDE[key][denial]:
        return denial if value != "none" or other < 0.3 else value
    if key in WIDE and value != "none" and chance > 0.85:
        wider = [s for s, values in WIDE[key].items() if value in values and s not in NEGATIVE]
        if wider:
            return wider[int(other * len(wider))]
    return value


def _chosen(
    portrait: Portrait,
    count: int | None,
    draw: Draw,
    negation: float,
    about: Collection[str] = KEYS,
) -> list[str]:
    """The keys to speak of, in order."""
    seen = {key: shown and key in about for key, shown in portrait.visible().items()}
    present: list[str] = []
    absent: list[str] = []
    for key in KEYS:
        if seen[key]:
            kept = portrait.attributes[key] != "none" or draw() < negation
            (present if kept else absent).append(key)
    order = [(draw(), key) for key in present]
    if count is None:
        count = 1 + int(len(present) * draw() ** 1.25)
    elif count > len(present):
        late = sorted((draw(), key) for key in absent)
        order += [(draw(), key) for _, key in late[: count - len(present)]]
    keys = [key for _, key in sorted(order)][:count]
    if "hat_color" in keys and "hat" not in keys:  # a colour is always that of a hat
        others = [key for key in keys if key != "hat_color"]
        keys = [key for key in keys if key != others[-1]] if others else []
        keys.append("hat")
    return keys


def _mentions(
    portrait: Portrait, keys: Sequence[str], style: str, frame: int, draw: Draw, negation: float
) -> tuple[Mention, ...]:
    """A mention for each topic of the keys, in the order of the keys."""
    said = {key: _sense(key, str(portrait.attributes[key]), draw, negation) for key in keys}
    if "hat_color" in said and list(keys).index("hat_color") < list(keys).index("hat"):
        said["hat"] = "any"  # who thinks of the colour first says "a red hat"
    form = STYLES[style].frames[frame]
    adjectives = 2 if form.adjectives else 0
    mentions = []
    for topic in dict.fromkeys(TOPIC_OF[key] for key in keys):
        term = tuple(said.get(key) for key in TOPICS[topic])
        role = frame_role(form, topic)
        if adjectives and draw() < 0.5 and templates(style, topic, term, "adjective"):
            role, adjectives = "adjective", adjectives - 1
        words = (int(draw() * 64), int(draw() * 64), int(draw() * 64))
        mentions.append(Mention(topic, term, role, words[0], words[1:]))
    return tuple(mentions)


def caption(
    portrait: Portrait,
    rng: np.random.Generator,
    *,
    count: int | None = None,
    style: CaptionStyle = TRAIN,
    negation: float = 0.1,
    about: Collection[str] = KEYS,
) -> Caption:
    """A caption that is true of a portrait and speaks only of what can be seen.

    ``count`` attributes are mentioned (by default 1 to all, short and long ones mixed); absent
    things ("without glasses") are among them with probability ``negation`` each, or when ``count``
    asks for more attributes than are present. A count beyond all visible ones means all. Only
    attributes in ``about`` are mentioned.

    Raises:
        ValueError: ``count`` below 1, ``negation`` outside [0, 1], or nothing to speak about.
    """
    if count is not None and count < 1:
        raise ValueError(f"a caption mentions at least 1 attribute, not {count}")
    if not 0 <= negation <= 1:
        raise ValueError(f"negation is a probability from 0 to 1, not {negation}")
    draw = _draws(rng)
    keys = _chosen(portrait, count, draw, negation, about)
    if not keys:
        raise ValueError(f"nothing of {', '.join(sorted(about))} can be seen in this portrait")
    return _about(portrait, keys, style, draw, negation)


def _about(
    portrait: Portrait, keys: Sequence[str], style: CaptionStyle, draw: Draw, negation: float
) -> Caption:
    frame = int(draw() * len(style.frames))
    lead = int(draw() * max(64, len(style.frames[frame].leads)))
    mentions = _mentions(portrait, keys, style.name, frame, draw, negation)
    return of_plan(CaptionPlan(style.name, frame, lead, mentions))


def _denial(portrait: Portrait, style: CaptionStyle, draw: Draw) -> Caption | None:
    """A caption of up to four attributes with at least one denial, if one can be made."""
    options = [key for key in KEYS if portrait.attributes[key] == "none"]
    if portrait.attributes["expression"] != "smile":
        options.append("expression")
    if not options:
        return None
    denied = options[int(draw() * len(options))]
    keys = [key for key in _chosen(portrait, 4, draw, 0) if key not in (denied, "hat_color")][:3]
    keys.insert(int(draw() * (len(keys) + 1)), denied)
    return _about(portrait, keys, style, draw, 1.0)


def captions(
    portrait: Portrait, rng: np.random.Generator, n: int = 5, *, style: CaptionStyle = TRAIN
) -> list[Caption]:
    """``n`` distinct true captions, short and long, in the order they are thought of.

    The first mentions every visible attribute (absent things as denials), the second at most two,
    the third denies something where that is possible; the others are free.

    Raises:
        ValueError: ``n`` below 1.
    """
    if n < 1:
        raise ValueError(f"at least 1 caption has to be asked for, not {n}")
    made: dict[str, Caption] = {}
    while len(made) < n:
        place = len(made)
        count = (len(KEYS), 1 + int(rng.integers(2)))[place] if place < 2 else None
        denial = _denial(portrait, style, _draws(rng)) if place == 2 else None
        said = denial or caption(portrait, rng, count=count, style=style)
        made.setdefault(said.text, said)
    return list(made.values())


def _edits(plan: CaptionPlan, portrait: Portrait) -> list[tuple[int, Term, str]]:
    """Every change of one mentioned attribute to a sense that is false of the portrait.

    Each is (place of the mention, its new term, the key that changed). Words that no training
    shows are used only for portraits that show one themselves.
    """
    kept_back = () if portrait.attributes["sign"] in UNSEEN_WORDS else UNSEEN_WORDS
    found = []
    for place, mention in enumerate(plan.mentions):
        for slot, term in neighbours(mention.topic, mention.term):
            key = TOPICS[mention.topic][slot]
            if portrait.attributes[key] in allowed(key, str(term[slot])) or term[slot] in kept_back:
                continue
            if templates(plan.style, mention.topic, term, mention.role):
                found.append((place, term, key))
    return found


def _changed(plan: CaptionPlan, place: int, term: Term) -> CaptionPlan:
    """The plan with another term for one mention, in the same form and place."""
    mentions = list(plan.mentions)
    mentions[place] = mentions[place]._replace(term=term)
    return plan._replace(mentions=tuple(mentions))


def _one_edit(
    plan: CaptionPlan, portrait: Portrait, rng: np.random.Generator
) -> tuple[CaptionPlan, str] | None:
    """A random edit and its key: first the attribute, then its new value, evenly."""
    options = _edits(plan, portrait)
    if not options:
        return None
    keys = sorted({key for _, _, key in options})
    wanted = keys[int(rng.integers(len(keys)))]
    options = [option for option in options if option[2] == wanted]
    place, term, _ = options[int(rng.integers(len(options)))]
    return _changed(plan, place, term), wanted


def edited(said: Caption, portrait: Portrait, rng: np.random.Generator) -> Caption | None:
    """The caption with exactly one mentioned attribute changed so that it is false of the portrait.

    Frame, order and the choice of words stay. None if nothing it mentions can be changed, which
    does not happen to captions made here.
    """
    edit = _one_edit(said.plan, portrait, rng)
    return None if edit is None else of_plan(edit[0])


def edited_many(
    said: Caption, portrait: Portrait, rng: np.random.Generator, n: int
) -> list[Caption]:
    """Up to ``n`` captions, distinct in what they claim, with one or two attributes changed.

    All are false of the portrait. Fewer come back if the caption has not ``n`` such changes (one
    that mentions the eyes alone has four).

    Raises:
        ValueError: ``n`` below 1.
    """
    if n < 1:
        raise ValueError(f"at least 1 caption has to be asked for, not {n}")
    found: dict[tuple[Term, ...], CaptionPlan] = {}
    for _ in range(n * 12):
        edit = _one_edit(said.plan, portrait, rng)
        if edit is None or len(found) == n:
            break
        plan = edit[0]
        if rng.random() < 0.6:
            second = _one_edit(plan, portrait, rng)
            plan = plan if second is None else second[0]
        found.setdefault(tuple(mention.term for mention in plan.mentions), plan)
    return [of_plan(plan) for plan in found.values()]


def value_prompts(key: str, value: str, style: CaptionStyle = TRAIN) -> list[str]:
    """At least four sentences that say an attribute's value and nothing else, for zero-shot use.

    Values "none" are said as denials; a hat's colour is that of "a hat".

    Raises:
        ValueError: a key or value that is not of the world.
    """
    check_value(key, value)
    topic = TOPIC_OF[key]
    term = tuple(value if other == key else None for other in TOPICS[topic])
    if key == "hat_color":
        term = ("any", value)
    texts: dict[str, None] = {}
    for frame, form in enumerate(style.frames):
        for turn in range(3):
            mention = Mention(topic, term, frame_role(form, topic), turn, (turn, turn))
            texts.setdefault(realise(CaptionPlan(style.name, frame, turn * 2, (mention,))))
    return list(texts)
