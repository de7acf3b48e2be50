"""Search by words, pictures or both, in four steps: embed the query, filter, score, rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from guided.core.prompts import embed_prompt
from guided.core.protocols import Scorer
from guided.errors import UsageError
from guided.retrieval.exact import Matrix, nearest_rows
from guided.retrieval.filters import parse
from guided.retrieval.store import Snapshot, Store


@dataclass(frozen=True)
class SearchResult:
    """A hit: its file, its cosine with the query, its key, and files that look the same."""

    file: str
    score: float
    key: int
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Query:
    """What is looked for: words (a prompt, with weights if wanted), pictures [n, 3, H, W] in [0, 1]
    one by one, and their weights.

    ``weights`` has a number for the words (if there are any) and then for each picture; none
    means equal ones.  A negative weight looks away from its part.
    """

    words: str = ""
    pictures: Sequence[Tensor] = ()
    weights: Sequence[float] = field(default=())


def embed_query(scorer: Scorer, query: Query) -> Tensor:
    """Step 1: one unit vector [D], the weighted mean of the unit vectors of the query's parts.

    Raises:
        UsageError: an empty query, weights of another number, or parts that cancel out.
    """
    words = query.words.strip()
    parts = [embed_prompt(scorer, words)[None]] if words else []
    parts.extend(scorer.embed_images(picture) for picture in query.pictures)
    if not parts:
        raise UsageError("The query is empty.", hint="Give words, a picture, or both.")
    weights = list(query.weights) or [1.0] * len(parts)
    if len(weights) != len(parts):
        raise UsageError(
            f"{len(weights)} weights were given for {len(parts)} parts of the query.",
            hint="Give one for the words, if any, and one for each picture, in that order.",
        )
    vectors = torch.cat(parts).detach()
    mixed = vectors.new_tensor(weights) @ vectors
    if not float(mixed.norm()) > 1e-4:
        raise UsageError(
            f"The parts of the query cancel out with the weights {weights}.",
            hint="Give other weights.",
        )
    return functional.normalize(mixed, dim=0)


def filter_rows(store: Store, snapshot: Snapshot, condition: str) -> Tensor | None:
    """Step 2: the rows [n] of the snapshot that fulfil a filter; None stands for all.

    Raises:
        UsageError: a filter that cannot be read.
    """
    if not condition.strip():
        return None
    keys = store.matching(parse(condition))
    return torch.nonzero(torch.isin(snapshot.ids, keys)).flatten()


def score(matrix: Matrix, query: Tensor, rows: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Step 3: the ``count`` best cosines [k], falling, and their rows [k], exact in float32."""
    scores, found = nearest_rows(matrix, query[None], count, rows)
    return scores[0].cpu(), found[0].cpu()


def rank(snapshot: Snapshot, scores: Tensor, rows: Tensor) -> list[SearchResult]:
    """Step 4: the files behind the rows, best first."""
    return [
        SearchResult(snapshot.files[row], score, int(snapshot.ids[row]))
        for score, row in zip(scores.tolist(), rows.tolist(), strict=True)
    ]


def rank_in_groups(
    snapshot: Snapshot, scores: Tensor, rows: Tensor, alike: float = 0.97
) -> list[SearchResult]:
    """Step 4 with duplicates folded: a hit whose cosine with a better one is at least ``alike``
    is listed under it."""
    vectors = functional.normalize(snapshot.vectors[rows].float(), dim=1)
    leaders: list[int] = []
    members: dict[int, list[int]] = {}
    for place in range(len(rows)):
        near = vectors[leaders] @ vectors[place] if leaders else torch.zeros(0)
        if len(near) and float(near.max()) >= alike:
            members[leaders[int(near.argmax())]].append(place)
        else:
            leaders.append(place)
            members[place] = []
    files = snapshot.files
    return [
        SearchResult(
            files[int(rows[leader])],
            float(scores[leader]),
            int(snapshot.ids[rows[leader]]),
            tuple(files[int(rows[place])] for place in members[leader]),
        )
        for leader in leaders
    ]


class Searcher:
    """An index in memory on a device, ready for any number of queries.

    It answers from the commit it was opened at; make another one to see later commits.
    """

    def __init__(self, store: Store, device: torch.device | None = None) -> None:
        self.store = store
        self.snapshot = store.snapshot()
        self.matrix = Matrix.of(self.snapshot.vectors, device)

    def __call__(
        self, vector: Tensor, top: int, *, where: str = "", alike: float | None = None
    ) -> list[SearchResult]:
        """The ``top`` hits for a query vector [D]; ``alike`` folds duplicates.

        Raises:
            UsageError: a filter that cannot be read, or ``top`` below 1.
        """
        rows = filter_rows(self.store, self.snapshot, where)
        if alike is None:
            return rank(self.snapshot, *score(self.matrix, vector, rows, top))
        size = len(self.matrix) if rows is None else len(rows)
        wanted = 4 * top
        while True:
            hits = rank_in_groups(
                self.snapshot, *score(self.matrix, vector, rows, wanted), alike=alike
            )
            if len(hits) > top or wanted >= size:
                return hits[:top]
            wanted *= 4
