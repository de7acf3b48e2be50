"""How well pictures made from captions of portraits obey them, and how varied they are.

For any generator that makes pictures of texts.  The reader and the judge CLIP judge; nothing was
optimised against either.  Every figure stands between a floor (pictures of other captions) and a
ceiling (the renderer's own pictures).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.protocols import Scorer
from guided.judging.distances import kernel_distance
from guided.judging.retrieval import Rate, near_misses, rate
from guided.worlds.portraits import KEYS, UNSEEN_WORDS, VALUES, Portrait, draw, sample
from guided.worlds.portraits.grammar.captions import Caption, caption, edited_many, of_plan
from guided.worlds.portraits.grammar.claims import Claim, all_true
from guided.worlds.portraits.grammar.frames import JUDGE, CaptionPlan, frame_role
from guided.worlds.portraits.judging.reader import Reader, ReaderOutput
from guided.worlds.portraits.splits import Split

#: Pictures [n, 3, H, W] in [0, 1] of texts, with a seed for each.
Make = Callable[[Sequence[str], Sequence[int]], Tensor]
MISSES = 99
#: World seeds of the portraits whose captions are judged, of others, and of the sampler.
CAPTIONS, OTHERS, SAMPLES = 8_400_000, 8_500_000, 8_600_000
#: What is found of words on shirts that no training shows.
UNSEEN = "sign_unseen"
_WORDS = ("none", "a word")


@dataclass(frozen=True)
class PromptSet:
    """Portraits with one caption each, in the training's words and in the judge's."""

    people: list[Portrait]
    said: list[Caption]
    retold: list[Caption]
    images: Tensor = field(repr=False)

    @classmethod
    def of(cls, split: Split, count: int, first: int = CAPTIONS, size: int = 128) -> PromptSet:
        """``count`` portraits of world seeds first, first + 1, ..."""
        stream = np.random.default_rng(first)
        people = [sample(first + i, split) for i in range(count)]
        said = [caption(person, stream) for person in people]
        images = to_tensor([draw(person, size) for person in people])
        return cls(people, said, [retold(each, stream) for each in said], images)

    def first(self, count: int) -> PromptSet:
        """The first so many of them."""
        return PromptSet(
            self.people[:count], self.said[:count], self.retold[:count], self.images[:count]
        )


def retold(said: Caption, stream: np.random.Generator) -> Caption:
    """The same claims in the judge's own words."""
    frame = int(stream.integers(len(JUDGE.frames)))
    form = JUDGE.frames[frame]
    mentions = tuple(
        m._replace(role=frame_role(form, m.topic), template=int(stream.integers(64)))
        for m in said.plan.mentions
    )
    return of_plan(CaptionPlan(JUDGE.name, frame, int(stream.integers(64)), mentions))


@dataclass(frozen=True)
class AttributeAccuracy:
    """How often what a caption mentions is read in its picture, by attribute and in the mean.

    Words on shirts that every training is kept from stand apart, as ``UNSEEN``: they count neither
    in the mean nor for the worst attribute.
    """

    by_key: dict[str, Rate]

    @property
    def mean(self) -> float:
        """The mean over attributes."""
        return float(np.mean([each.value for key, each in self.by_key.items() if key in KEYS]))

    @property
    def worst(self) -> tuple[str, float]:
        """The attribute that is obeyed least, and how often."""
        key = min((k for k in self.by_key if k in KEYS), key=lambda k: self.by_key[k].value)
        return key, self.by_key[key].value


def unseen(claim: Claim) -> bool:
    """Whether a claim is of a word that no training shows."""
    return claim.key == "sign" and claim.allowed <= set(UNSEEN_WORDS)


def attribute_accuracy(
    readings: Sequence[ReaderOutput], said: Sequence[Caption]
) -> AttributeAccuracy:
    """How often each mentioned attribute is among what its caption allows.

    Raises:
        ValueError: not one caption for each reading.
    """
    hits: dict[str, list[float]] = {}
    for reading, told in zip(readings, said, strict=True):
        for claim in told.claims:
            name = UNSEEN if unseen(claim) else claim.key
            hits.setdefault(name, []).append(reading.attributes[claim.key] in claim.allowed)
    order = (key for key in (*KEYS, UNSEEN) if key in hits)
    return AttributeAccuracy({key: rate(torch.tensor(hits[key]).double()) for key in order})


def left_open(readings: Sequence[ReaderOutput], said: Sequence[Caption]) -> dict[str, np.ndarray]:
    """For each attribute the shares of values read where the caption does not speak of it.

    A word on a shirt counts as one value beside none; a hat's colour where a hat is read.
    """
    shares = {}
    for key in KEYS:
        values = _WORDS if key == "sign" else VALUES[key]
        found = [
            _WORDS[int(value != "none")] if key == "sign" else value
            for reading, told in zip(readings, said, strict=True)
            if key not in told.mentioned and (value := reading.attributes[key]) is not None
        ]
        counts = np.array([found.count(value) for value in values], float)
        shares[key] = counts / max(counts.sum(), 1)
    return shares


def variation(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> dict[str, float]:
    """The total variation in [0, 1] between two sets of shares, attribute by attribute."""
    return {key: float(0.5 * np.abs(some[key] - others[key]).sum()) for key in some}


@torch.no_grad()
def embedded(images: Tensor, scorer: Scorer) -> Tensor:
    """Unit vectors [n, D], float32 on the CPU, of pictures [n, 3, H, W] in [0, 1]."""
    return torch.cat([scorer.embed_images(part).float().cpu() for part in torch.split(images, 128)])


@torch.no_grad()
def hard_negatives(asked: PromptSet, judge: Scorer, misses: int = MISSES) -> Tensor:
    """Each caption and its near misses in the judge's words, unit vectors [n, 1 + misses, D].

    A near miss has one or two mentioned attributes changed; a caption with fewer of them is also
    set against captions of others that are false of its portrait.
    """
    stream = np.random.default_rng(5)
    rows = []
    for person, told in zip(asked.people, asked.retold, strict=True):
        near = [miss.text for miss in edited_many(told, person, stream, misses)]
        order = stream.permutation(len(asked.retold))
        far = (
            asked.retold[i].text for i in order if not asked.retold[i].is_true(person.attributes)
        )
        while len(near) < misses and (text := next(far, None)) is not None:
            near.append(text)
        near += [near[-1]] * (misses - len(near))
        rows.append(judge.embed_texts([told.text, *near]).float().cpu())
    return torch.stack(rows)


def r_precision(images: Tensor, asked: PromptSet, judge: Scorer, misses: int = MISSES) -> Rate:
    """How often a picture fits its own caption best among its ``hard_negatives``."""
    return near_misses(embedded(images, judge), hard_negatives(asked, judge, misses))


def adherence(claims: Sequence[Claim], first: int, count: int, split: Split) -> list[Portrait]:
    """``count`` different portraits of which all claims are true; the rest is the world's own."""
    found: list[Portrait] = []
    seed = first
    while len(found) < count:
        person, seed = sample(seed, split), seed + 1
        for claim in claims:
            if person.attributes[claim.key] not in claim.allowed:
                value = sorted(claim.allowed)[seed % len(claim.allowed)]
                person = person.with_attribute(claim.key, value)
        if all_true(claims, person.attributes):
            found.append(person)
        elif seed - first > 50 * count:
            break
    return found


def pairwise_distance(images: Tensor, group: int) -> float:
    """The mean root mean square difference of two of ``group`` successive pictures of one text."""
    sets = images.flatten(1).view(-1, group, images[0].numel())
    apart = (sets[:, :, None] - sets[:, None]).square().mean(3).sqrt()
    return float(apart.sum() / (len(sets) * group * (group - 1)))


def nearest(features: Tensor, known: Tensor) -> float:
    """The median distance of features [n, F] to the nearest of known ones [m, F]."""
    return float(torch.cdist(features.double(), known.double()).amin(1).median())


@dataclass(frozen=True)
class MetricRow:
    """A measured value between its floor and its ceiling."""

    value: float
    floor: float
    ceiling: float


def text_image_figures(
    make: Make, reader: Reader, judge: Scorer, split: Split, count: int = 1000, size: int = 128
) -> dict[str, MetricRow]:
    """Every figure of a generator, by name.

    ``accuracy`` (mean), ``worst`` and ``accuracy_KEY``: mentioned attributes that are read in the
    picture; floor: pictures of other captions (words on shirts that no training shows are
    ``accuracy_sign_unseen``, and count in no mean).  ``open`` and ``open_worst``: total variation
    of attributes that captions leave open; floor: pictures that are all alike, ceiling: other real
    portraits.  ``r_precision``: 1 + 99 captions.  ``kid``: kernel distance of reader features;
    floor: one grey picture.  ``diversity``: difference of pictures of one caption, as a ratio to
    the renderer's.  ``memory``: distance to the nearest training portrait, as a ratio to that of
    new portraits (well below 1: learnt by heart).
    """
    asked = PromptSet.of(split, count, size=size)
    texts = [said.text for said in asked.said]
    images = make(texts, range(SAMPLES, SAMPLES + count))
    readings, real = reader.read(images), reader.read(asked.images)
    other = PromptSet.of(split, count, OTHERS, size)
    rows = adherence_rows(readings, real, asked)
    rows |= open_rows(readings, real, asked, left_open(reader.read(other.images), other.said))
    told = hard_negatives(asked, judge)
    rows["r_precision"] = MetricRow(
        near_misses(embedded(images, judge), told).value, 1 / (MISSES + 1),
        near_misses(embedded(asked.images, judge), told).value,
    )  # fmt: skip
    known, made = reader.features(asked.images), reader.features(images)
    grey = asked.images.mean(0, keepdim=True).expand(2, -1, -1, -1)
    blank = reader.features(grey)[:1].expand(count, -1)
    rows["kid"] = MetricRow(
        kernel_distance(made, known), kernel_distance(blank, known),
        kernel_distance(reader.features(other.images), known),
    )  # fmt: skip
    rows["diversity"] = MetricRow(diversity(make, asked, split, size), 0.0, 1.0)
    train = to_tensor([draw(sample(i, "train"), size) for i in range(2 * count)])
    learnt = reader.features(train)
    fresh = nearest(known, learnt)
    again = reader.features(train[:count])
    rows["memory"] = MetricRow(nearest(made, learnt) / fresh, nearest(again, learnt) / fresh, 1.0)
    return rows


def adherence_rows(
    readings: Sequence[ReaderOutput], real: Sequence[ReaderOutput], asked: PromptSet
) -> dict[str, MetricRow]:
    """``accuracy``, ``worst`` and ``accuracy_KEY`` of readings of a picture for each caption;
    ``real`` are those of the portraits themselves.
    """
    found, best = attribute_accuracy(readings, asked.said), attribute_accuracy(real, asked.said)
    least = attribute_accuracy([*readings[1:], readings[0]], asked.said)
    key = found.worst[0]
    rows = {
        "accuracy": MetricRow(found.mean, least.mean, best.mean),
        "worst": MetricRow(found.worst[1], least.by_key[key].value, best.by_key[key].value),
    }
    return rows | {
        f"accuracy_{key}": MetricRow(each.value, least.by_key[key].value, best.by_key[key].value)
        for key, each in found.by_key.items()
    }


def open_rows(
    readings: Sequence[ReaderOutput], real: Sequence[ReaderOutput], asked: PromptSet,
    others: dict[str, np.ndarray],
) -> dict[str, MetricRow]:  # fmt: skip
    """``open`` and ``open_worst``; ``others`` are the shares of what captions of other portraits
    leave open.
    """
    world = left_open(real, asked.said)
    again = variation(others, world)
    found = variation(left_open(readings, asked.said), world)
    alike = variation(left_open([readings[0]] * len(readings), asked.said), world)

    def worst(of: dict[str, float]) -> float:
        return max(of.values())

    def mean(of: dict[str, float]) -> float:
        return float(np.mean(list(of.values())))

    return {
        "open": MetricRow(mean(found), mean(alike), mean(again)),
        "open_worst": MetricRow(worst(found), worst(alike), worst(again)),
    }


def diversity(make: Make, asked: PromptSet, split: Split, size: int, group: int = 4) -> float:
    """The spread of pictures of one caption over that of portraits of which it is true."""
    texts, drawn = [], []
    for place, said in enumerate(asked.said[:50]):
        people = adherence(said.claims, OTHERS + 1000 * place, group, split)
        if len(people) == group:
            texts += [said.text] * group
            drawn += [draw(person, size) for person in people]
    made = make(texts, range(SAMPLES, SAMPLES + len(texts)))
    return pairwise_distance(made, group) / pairwise_distance(to_tensor(drawn), group)
