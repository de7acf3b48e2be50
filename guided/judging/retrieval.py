"""How well embeddings retrieve: recall at k with ties, zero-shot tables, near misses.

Ties are counted as a fair coin would decide them: a score shared by several candidates is a hit
at k with the probability that a random order of the equals puts a right one among the first k.
A model that gives every candidate the same score gets chance, not 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guided.core.shapes import expect
from guided.errors import ShapeError


@dataclass(frozen=True)
class Rate:
    """A share in [0, 1] of ``count`` cases with its 95 % interval."""

    value: float
    count: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rate(hits: Tensor) -> Rate:
    """The mean of hits [n] in [0, 1] with Wilson's interval (NaN without a case).

    Source: Wilson 1927; for hits that are not 0 or 1 it is somewhat too wide, never too narrow.

    >>> print(rate(torch.tensor([1.0, 1.0, 1.0, 0.0])))
    0.750 [0.301, 0.954]
    """
    n = len(hits)
    if n == 0:
        return Rate(math.nan, 0, math.nan, math.nan)
    p, z = float(hits.double().mean()), 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Rate(p, n, max(0.0, centre - half), min(1.0, centre + half))


@dataclass(frozen=True)
class Retrieval:
    """What a set of queries found among candidates.

    ``recall`` maps k to the share of queries with a right candidate among the first k;
    ``median_rank`` and ``mean_rank`` are those of the first right one (1 is best).
    """

    recall: Mapping[int, Rate]
    median_rank: float
    mean_rank: float


def retrieval(
    scores: Tensor, right: Tensor | None = None, ks: Sequence[int] = (1, 5, 10)
) -> Retrieval:
    """Recall at k and ranks of queries [Q] among candidates [N] by their scores [Q, N].

    ``right`` [Q, N] marks the right candidates of each query (one or more); without it candidate
    i is that of query i.

    Raises:
        ShapeError: shapes that do not fit, scores that are not finite, a query without a right one.
    """
    above, level, equal = _counts(scores, right)
    recall = {k: rate(_chance(above, level, equal, k)) for k in ks}
    ranks = above + (equal - level) / (level + 1) + 1
    return Retrieval(recall, float(ranks.quantile(0.5)), float(ranks.mean()))


def _counts(scores: Tensor, right: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of each query [Q] (float64): candidates above the best right one, right ones at its level,
    and all at its level."""
    sizes = expect(scores, "q n", "scores")
    if not bool(torch.isfinite(scores).all()):
        raise ShapeError("scores must be finite; some are NaN or infinite.")
    if right is None:
        if sizes["q"] != sizes["n"]:
            raise ShapeError(f"{sizes['q']} queries and {sizes['n']} candidates need `right`.")
        right = torch.eye(sizes["q"], dtype=torch.bool, device=scores.device)
    expect(right, f"{sizes['q']} {sizes['n']}", "right")
    right = right.bool()
    if not bool(right.any(dim=1).all()):
        raise ShapeError("Every query needs a right candidate; some have none.")
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    above = (scores > best).sum(dim=1).double()
    same = scores == best
    return above, (same & right).sum(dim=1).double(), same.sum(dim=1).double()


def _chance(above: Tensor, level: Tensor, equal: Tensor, k: int) -> Tensor:
    """The probability [Q] that a random order of equals puts a right one among the first k.

    With s places left for e equals of which r are right: 1 - C(e - r, s) / C(e, s).
    """
    places = (k - above).clamp_min(0).minimum(equal)
    wrong = equal - level
    missed = (
        torch.lgamma(wrong + 1)
        - torch.lgamma((wrong - places).clamp_min(0) + 1)
        - torch.lgamma(equal + 1)
        + torch.lgamma(equal - places + 1)
    ).exp()
    return torch.where(places > wrong, torch.ones_like(missed), 1 - missed)


def both_ways(
    images: Tensor, texts: Tensor, right: Tensor | None = None, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, Retrieval]:
    """Retrieval of images by text and of texts by image, from unit vectors [N, D] and [M, D].

    ``right`` [N, M] marks the pairs that belong together.
    """
    scores = images @ texts.T
    return {
        "text_to_image": retrieval(scores.T, None if right is None else right.T, ks),
        "image_to_text": retrieval(scores, right, ks),
    }


@dataclass(frozen=True)
class ZeroShot:
    """A zero-shot classification: accuracy in all and by class, and what was taken for what.

    ``confusion`` [C, C] counts true classes by row and answers by column.
    """

    labels: tuple[str, ...]
    accuracy: Rate
    by_class: Mapping[str, Rate]
    confusion: Tensor = field(repr=False)


def zero_shot(scores: Tensor, truth: Tensor, labels: Sequence[str]) -> ZeroShot:
    """The zero-shot result of scores [N, C] for true classes [N].

    A tie of the truth with other classes counts as a coin would decide it.

    Raises:
        ShapeError: shapes that do not fit, or a class that is not there.
    """
    sizes = expect(scores, f"n {len(labels)}", "scores")
    expect(truth, f"{sizes['n']}", "truth")
    truth = truth.long()
    if len(truth) and not 0 <= int(truth.min()) <= int(truth.max()) < len(labels):
        raise ShapeError(f"truth must lie in [0, {len(labels)}).")
    right = torch.nn.functional.one_hot(truth, len(labels)).bool()
    hits = _chance(*_counts(scores, right), 1)
    by_class = {label: rate(hits[truth == i]) for i, label in enumerate(labels)}
    confusion = torch.zeros(len(labels), len(labels), dtype=torch.long)
    pairs = truth.cpu() * len(labels) + scores.argmax(dim=1).cpu()
    confusion.view(-1).scatter_add_(0, pairs, torch.ones_like(pairs))
    return ZeroShot(tuple(labels), rate(hits), by_class, confusion)


@dataclass(frozen=True)
class ZeroShotTable:
    """Zero-shot results of several attributes: their mean accuracy and the worst one."""

    rows: Mapping[str, ZeroShot]

    @property
    def mean(self) -> float:
        """The mean accuracy over attributes."""
        return sum(row.accuracy.value for row in self.rows.values()) / len(self.rows)

    @property
    def worst(self) -> tuple[str, float]:
        """The attribute with the lowest accuracy, and that accuracy."""
        name = min(self.rows, key=lambda name: self.rows[name].accuracy.value)
        return name, self.rows[name].accuracy.value

    def markdown(self) -> str:
        """A table of attribute, accuracy with interval, and the class that is hardest."""
        lines = ["| attribute | accuracy | classes | hardest class |", "|---|---|---|---|"]
        for name, row in self.rows.items():
            seen = {label: r for label, r in row.by_class.items() if r.count}
            label = min(seen, key=lambda label: seen[label].value) if seen else ""
            hardest = f"{label} {seen[label].value:.3f}" if seen else "-"
            lines.append(f"| {name} | {row.accuracy} | {len(row.labels)} | {hardest} |")
        lines.append(f"| mean | {self.mean:.3f} | | worst: {self.worst[0]} |")
        return "\n".join(lines)


def near_misses(images: Tensor, candidates: Tensor) -> Rate:
    """How often an image [N, D] prefers its own text to near misses, candidates [N, C, D].

    Candidate 0 is the true text, the others differ from it in a detail; all are unit vectors.

    Raises:
        ShapeError: shapes that do not fit.
    """
    sizes = expect(images, "n d", "images")
    expect(candidates, f"{sizes['n']} c {sizes['d']}", "candidates")
    scores = torch.einsum("nd,ncd->nc", images, candidates)
    right = torch.zeros_like(scores, dtype=torch.bool)
    right[:, 0] = True
    return rate(_chance(*_counts(scores, right), 1))


def wrong_preferences(true: Tensor, false: Tensor) -> Rate:
    """How often the score [N] of a false text is above that of the true one; a tie is half a one.

    Raises:
        ShapeError: shapes that do not fit.
    """
    expect(true, "n", "true")
    expect(false, f"{len(true)}", "false")
    return rate((false > true).double() + 0.5 * (false == true).double())
