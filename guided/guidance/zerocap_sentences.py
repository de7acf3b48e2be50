"""From beams to sentences with what CLIP and the language model think of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from guided.core.language_model import LanguageModel
from guided.guidance.decode import Beams


class TextScorer(Protocol):
    """Embeds texts."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width] of texts."""
        ...


class Rates(LanguageModel, Protocol):
    """A language model that can tell how likely a whole sentence is."""

    def losses(self, tokens: Tensor, start: int = 1) -> Tensor:
        """The mean negative log-probability [B] of tokens [B, T] from ``start`` on."""
        ...


@dataclass(frozen=True)
class Sentence:
    """One finished caption.

    ``clip`` is the cosine with the target, ``language`` the mean negative log-probability in nats
    of the tokens written after the prompt, ``total`` what sentences are ranked by.
    """

    text: str
    clip: float
    language: float
    total: float


@dataclass(frozen=True)
class Ranking:
    """How sentences are ranked: total = clip - ``fluency`` * language.

    ``unfinished`` is taken from the total of a sentence that has no end.
    ``with_prompt`` scores the whole sentence; without, only what was written after the prompt, as
    the reference does.  With ``by_beam`` the order is that of the search, and total is the beam's
    mean log-probability.
    """

    fluency: float = 0.01
    with_prompt: bool = True
    by_beam: bool = False
    unfinished: float = 0.0


def sentences(
    beams: Beams,
    language: Rates,
    scorer: TextScorer,
    targets: Tensor,
    end: int,
    ranking: Ranking,
) -> list[list[Sentence]]:
    """For each sample its distinct sentences, the best first; ``targets`` [S, D] are unit vectors.

    An end token that is no text (the begin token again) is left out of the sentence.
    """
    ranked = beams.ranked()
    samples, width = ranked.stopped.shape
    rows = [
        (sample, ranked.tokens[sample, 0, : beams.prompt].tolist(), ranked.written(sample, beam))
        for sample in range(samples)
        for beam in range(width)
    ]
    silent = end == language.begin
    texts, spoken = [], []
    for _, prompt, written in rows:
        said = written[:-1] if silent and written[-1:] == [end] else written
        skip = 1 if prompt[0] == language.begin else 0
        whole = [*prompt[skip:], *said]
        texts.append(language.decode(whole))
        spoken.append(texts[-1] if ranking.with_prompt else language.decode(said))
    cosines = _cosines(scorer, spoken, targets[[sample for sample, *_ in rows]])
    losses = _losses(language, [(prompt, written) for _, prompt, written in rows])
    scores = ranked.scores.flatten().tolist()
    found: list[dict[str, Sentence]] = [{} for _ in range(samples)]
    ended = ranked.stopped.flatten().tolist()
    for (sample, *_), text, clip, loss, score, done in zip(
        rows, texts, cosines, losses, scores, ended, strict=True
    ):
        cost = ranking.fluency * loss + (0.0 if done else ranking.unfinished)
        total = score if ranking.by_beam else clip - cost
        found[sample].setdefault(text, Sentence(text.strip(), clip, loss, total))
    return [sorted(several.values(), key=lambda sentence: -sentence.total) for several in found]


def _cosines(scorer: TextScorer, texts: Sequence[str], targets: Tensor) -> list[float]:
    embedded = scorer.embed_texts(list(texts))
    cosines: list[float] = (embedded * targets.to(embedded)).sum(dim=1).tolist()
    return cosines


def _losses(language: Rates, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """The mean negative log-probability of what was written, rows of one length together."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, (_, written) in enumerate(rows):
        by_length[len(written)].append(place)
    found = [0.0] * len(rows)
    for places in by_length.values():
        tokens = torch.tensor([rows[place][0] + rows[place][1] for place in places])
        start = len(rows[places[0]][0])
        for place, loss in zip(places, language.losses(tokens, start).tolist(), strict=True):
            found[place] = loss
    return found
