"""How good two stages are: a prior from words to embeddings, a decoder from there to pictures.

The prior's embeddings are set against those of true pictures, its pictures against those that the
same decoder makes when it is told the words, variations against what the picture shows.  The reader
and the judge CLIP judge; nothing was optimised against either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.protocols import Scorer
from guided.judging.retrieval import near_misses, retrieval
from guided.worlds.portraits import KEYS, draw
from guided.worlds.portraits.grammar.captions import Caption
from guided.worlds.portraits.judging.diffusion_figures import OTHER_DRAW, Redraw, redrawn_figures
from guided.worlds.portraits.judging.edit_figures import Span, resampled, span_of
from guided.worlds.portraits.judging.reader import Reader, ReaderOutput
from guided.worlds.portraits.judging.text_image_figures import (
    MISSES,
    OTHERS,
    SAMPLES,
    Make,
    MetricRow,
    PromptSet,
    adherence,
    adherence_rows,
    embedded,
    left_open,
    open_rows,
)
from guided.worlds.portraits.splits import Split

#: Unit embeddings [n, D] of pictures that are imagined of texts, with a seed for each.
Imagine = Callable[[Sequence[str], Sequence[int]], Tensor]
#: How much less accurate two stages may be than the decoder that is told the words.
ALLOWED = 0.05


def twins(asked: PromptSet, split: Split, size: int) -> tuple[list[int], Tensor]:
    """The places of captions with another portrait of which all is true, and its pictures
    [m, 3, size, size] in [0, 1].
    """
    places, drawn = [], []
    for place, said in enumerate(asked.said):
        for person in adherence(said.claims, OTHERS + 1000 * place, 1, split):
            places.append(place)
            drawn.append(draw(person, size))
    return places, to_tensor(drawn)


# --------------------------------------------------------------------------- the prior


@torch.no_grad()
def prior_figures(
    imagine: Imagine, scorer: Scorer, split: Split, count: int = 1000, size: int = 128
) -> dict[str, MetricRow]:
    """What a prior imagines of captions of new portraits, in the guiding CLIP's own space.

    ``cosine``: with the embedding of the portrait that the caption is of; ``recall``: how often
    that one is the nearest of all ``count`` (``rank``: the median place).  Floors are those of the
    mean embedding of portraits, ceilings those of another portrait of which the caption is true;
    ``..._text`` stands for the caption's own embedding in the prior's place.  ``words``: cosine
    with the caption's embedding.  ``alike``: cosine of two that are imagined of one caption; its
    floor is always the same one, its ceiling two true portraits.
    """
    asked = PromptSet.of(split, count, size=size)
    texts = [said.text for said in asked.said]
    true = embedded(asked.images, scorer)
    told = torch.cat([scorer.embed_texts(texts[i : i + 128]).float().cpu()
                      for i in range(0, count, 128)])  # fmt: skip
    others = embedded(PromptSet.of(split, count, OTHERS, size).images, scorer)
    middle = F.normalize(others.mean(0, keepdim=True), dim=1).expand_as(true)
    places, images = twins(asked, split, size)
    again = embedded(images, scorer)
    made, second = (
        imagine(texts, range(SAMPLES + more, SAMPLES + more + count)).float().cpu()
        for more in (0, OTHER_DRAW)
    )

    def cosine(some: Tensor, rows: Sequence[int] | slice = slice(None)) -> float:
        return float((some * true[rows]).sum(1).mean())

    def found(some: Tensor, rows: Sequence[int] | slice = slice(None)) -> tuple[float, float]:
        ranks = retrieval(some @ true.T, torch.eye(count, dtype=torch.bool)[rows])
        return ranks.recall[1].value, ranks.median_rank

    low, high = found(middle), found(again, places)
    rows = {}
    for name, some in (("", made), ("_text", told)):
        recall, rank = found(some)
        rows[f"cosine{name}"] = MetricRow(cosine(some), cosine(middle), cosine(again, places))
        rows[f"recall{name}"] = MetricRow(recall, low[0], high[0])
        rows[f"rank{name}"] = MetricRow(rank, low[1], high[1])
    said = [float((some * told).sum(1).mean()) for some in (made, middle, true)]
    rows["words"] = MetricRow(*said)
    rows["alike"] = MetricRow(float((made * second).sum(1).mean()), 1.0, cosine(again, places))
    return rows


# --------------------------------------------------------------------------- words to pictures


@dataclass(frozen=True)
class BenchmarkResult:
    """What pictures of captions are found to be: figures, and what they are made of by caption.

    ``hits`` and ``asked`` [n, 13]: claims that the reader confirms, of how many; ``apart`` [n]: the
    root mean square difference of two pictures of a caption, over the renderer's mean.
    """

    rows: dict[str, MetricRow]
    hits: np.ndarray = field(repr=False)
    asked: np.ndarray = field(repr=False)
    apart: np.ndarray = field(repr=False)

    def accuracies(self, weights: np.ndarray) -> np.ndarray:
        """The mean accuracy [r] over attributes, captions weighted by [r, n]."""
        counts = weights @ self.asked
        shares = np.divide(weights @ self.hits, counts, where=counts > 0,
                           out=np.full(counts.shape, np.nan))  # fmt: skip
        return np.asarray(np.nanmean(shares, axis=1))


@dataclass(frozen=True)
class Benchmark:
    """Captions of new portraits with all that pictures of them are compared with."""

    asked: PromptSet
    reader: Reader
    judge: Scorer
    hard_negatives: Tensor
    real: list[ReaderOutput]
    others: dict[str, np.ndarray]
    best: dict[str, float]

    @classmethod
    def of(
        cls, reader: Reader, judge: Scorer, asked: PromptSet, told: Tensor, split: Split
    ) -> Benchmark:  # fmt: skip
        """The exam on portraits of a split; ``told`` are their ``hard_negatives``."""
        count, size = len(asked.people), int(asked.images.shape[-1])
        other, real = PromptSet.of(split, count, OTHERS, size), reader.read(asked.images)
        places, images = twins(asked, split, size)
        said = [asked.said[place] for place in places]
        best = {
            "r_precision": near_misses(embedded(asked.images, judge), told).value,
            "spread": float(rms_distance(asked.images[places], images).mean()),
            "varied": attribute_diversity(
                [real[place] for place in places], reader.read(images), said
            ),
        }
        others = left_open(reader.read(other.images), other.said)
        return cls(asked, reader, judge, told, real, others, best)

    def look(self, make: Make) -> BenchmarkResult:
        """The figures of pictures that are made of the captions, two of each.

        Of the first: ``accuracy``, ``worst``, ``accuracy_KEY``, ``open``, ``open_worst`` and
        ``r_precision`` as ``text_image_figures`` has them.  Of both: ``diversity``, their
        difference over the renderer's for two portraits of a caption; ``attribute_diversity``,
        the share of what the caption leaves open that the reader reads otherwise.
        """
        said = self.asked.said
        texts, count = [each.text for each in said], len(said)
        first, second = (
            make(texts, range(SAMPLES + more, SAMPLES + more + count)) for more in (0, OTHER_DRAW)
        )
        readings, again = self.reader.read(first), self.reader.read(second)
        apart = rms_distance(first, second) / self.best["spread"]
        rows = adherence_rows(readings, self.real, self.asked)
        rows |= open_rows(readings, self.real, self.asked, self.others)
        fits = near_misses(embedded(first, self.judge), self.hard_negatives).value
        rows["r_precision"] = MetricRow(fits, 1 / (MISSES + 1), self.best["r_precision"])
        rows["diversity"] = MetricRow(float(apart.mean()), 0.0, 1.0)
        rows["varied"] = MetricRow(
            attribute_diversity(readings, again, said), 0.0, self.best["varied"]
        )
        return BenchmarkResult(rows, *_confirmed(readings, said), apart)


def attribute_diversity(
    some: Sequence[ReaderOutput], others: Sequence[ReaderOutput], said: Sequence[Caption]
) -> float:
    """The share of attributes that captions leave open and two pictures show differently.

    A word on a shirt counts as one value beside none.
    """
    found = []
    for one, two, told in zip(some, others, said, strict=True):
        for key in set(KEYS) - told.mentioned:
            a, b = one.attributes[key], two.attributes[key]
            if a is not None or b is not None:
                found.append((a == "none") != (b == "none") if key == "sign" else a != b)
    return float(np.mean(found))


def rms_distance(some: Tensor, others: Tensor) -> np.ndarray:
    """The root mean square difference [n] of pictures [n, 3, H, W]."""
    return np.asarray((some - others).flatten(1).square().mean(1).sqrt())


def _confirmed(
    readings: Sequence[ReaderOutput], said: Sequence[Caption]
) -> tuple[np.ndarray, np.ndarray]:
    """By caption and attribute [n, 13]: claims that are confirmed, and all claims."""
    found = np.zeros((2, len(said), len(KEYS)))
    for row, (reading, told) in enumerate(zip(readings, said, strict=True)):
        for claim in told.claims:
            column = KEYS.index(claim.key)
            found[:, row, column] += reading.attributes[claim.key] in claim.allowed, 1
    return found[0], found[1]


# --------------------------------------------------------------------------- the verdict


@dataclass(frozen=True)
class Verdict:
    """Two stages beside one: differences with 95 % intervals (bootstrap over captions).

    ``rival`` is the diversity that the words alone reach at the two stages' accuracy; None where
    they do not reach that accuracy with any scale that was tried.
    """

    accuracy: Span
    diversity: Span
    rival: float | None

    @property
    def accurate(self) -> bool:
        """Whether the accuracy is within 5 points."""
        return self.accuracy.value >= -ALLOWED

    def more_varied(self, own: float) -> bool:
        """Whether a diversity of ``own`` is higher than the rival's at the same accuracy."""
        return self.rival is None or own > self.rival


def verdict(
    two: BenchmarkResult, one: BenchmarkResult, table: Sequence[tuple[float, float]] = ()
) -> Verdict:
    """Two stages against one that is told the words, on the same captions.

    ``table`` holds accuracy and diversity of the latter by rising guidance; without it what ``one``
    reaches is all that is known.
    """
    weights = resampled(range(len(two.apart)), 0)
    whole = np.full((1, len(two.apart)), 1 / len(two.apart))
    gap = two.accuracies(weights) - one.accuracies(weights)
    value = float((two.accuracies(whole) - one.accuracies(whole))[0])
    apart = two.apart - one.apart
    known = table or [(one.rows["accuracy"].value, one.rows["diversity"].value)]
    return Verdict(
        span_of(value, gap), span_of(float(apart.mean()), weights @ apart),
        same_accuracy(known, two.rows["accuracy"].value),
    )  # fmt: skip


def same_accuracy(table: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """The highest diversity at an accuracy or above, of settings in a row and, in equal steps,
    between neighbours; None where none is so accurate.

    >>> same_accuracy([(0.8, 1.0), (0.9, 0.5)], 0.85)
    0.75
    >>> same_accuracy([(0.8, 1.0)], 0.85) is None
    True
    """
    found = [diverse for right, diverse in table if right >= accuracy]
    for (right, diverse), (other, less) in pairwise(table):
        if min(right, other) < accuracy <= max(right, other):
            share = (accuracy - right) / (other - right)
            found.append(round(diverse + share * (less - diverse), 9))
    return max(found, default=None)


def scales_table(by_scale: Mapping[float, tuple[BenchmarkResult, BenchmarkResult]]) -> str:
    """Both ways by guidance scale, as markdown; each pair is two stages, then words alone."""
    names = ("accuracy", "r_precision", "diversity", "varied", "open")
    head = ["cfg", *(f"{way} {name}" for way in ("unclip", "words") for name in names)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for scale, pair in by_scale.items():
        cells = [f"{shown.rows[name].value:.3f}" for shown in pair for name in names]
        lines.append(f"| {scale:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


# --------------------------------------------------------------------------- variations, words


def vary_figures(
    ways: Mapping[str, Redraw], reader: Reader, split: Split, count: int, size: int = 128
) -> dict[str, MetricRow]:
    """What ways to redraw a portrait keep: for each ``NAME_kept``, ``NAME_kept_worst``,
    ``NAME_kept_KEY`` and ``NAME_l1`` as ``redrawn_figures`` has them.
    """
    return {
        f"{name}_{key}": row
        for name, redraw in ways.items()
        for key, row in redrawn_figures(redraw, reader, split, count, size).items()
    }
