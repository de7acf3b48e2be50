"""How natural sentences are, by a language model of words that never guided anything."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.grammar.frames import JUDGE, TRAIN
from guided.worlds.portraits.splits import sample

_PIECE = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*|[^\sA-Za-z]")
_BEGIN, _END, _UNKNOWN = "<begin>", "<end>", "<unknown>"

#: World seeds from here on belong to the judge's text; no other model reads or draws them.
FIRST_SEED = 9_000_000


def pieces_of(text: str) -> list[str]:
    """Words and punctuation marks; words in capitals (on shirts) keep theirs.

    >>> pieces_of("A person, smiling.")
    ['a', 'person', ',', 'smiling', '.']
    """
    found = _PIECE.findall(text)
    return [word if len(word) > 1 and word.isupper() else word.lower() for word in found]


def judge_text(count: int) -> Iterator[str]:
    """Captions of portraits in both wordings in turn, of people and choices of their own."""
    rng = np.random.default_rng([FIRST_SEED, 17])
    for index in range(count):
        style = (TRAIN, JUDGE)[index % 2]
        yield caption(sample(FIRST_SEED + index), rng, style=style).text


class WordModel:
    """A word n-gram with absolute discounting, backed off to shorter contexts.

    p(w | c) = max(n(c, w) - d, 0) / n(c) + d * (kinds of words after c) / n(c) * p(w | shorter c);
    the shortest is uniform over the known words and "unknown".  Probabilities of what may follow a
    context sum to one.

    Source: Ney, Essen, Kneser 1994 (interpolated form).
    """

    def __init__(self, texts: Iterable[str], order: int = 4, discount: float = 0.75) -> None:
        self.order = order
        self.discount = discount
        self._counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        words: set[str] = {_END}
        for text in texts:
            row = self._row(pieces_of(text))
            words.update(row[order - 1 :])
            for place in range(order - 1, len(row)):
                for length in range(order):
                    self._counts[tuple(row[place - length : place])][row[place]] += 1
        if len(words) == 1:
            raise ValueError("a language model cannot be made of no text")
        self.words = frozenset(words)
        self._totals = {context: counts.total() for context, counts in self._counts.items()}

    def _row(self, words: Sequence[str]) -> list[str]:
        return [*[_BEGIN] * (self.order - 1), *words, _END]

    def probability(self, word: str, context: Sequence[str]) -> float:
        """p(word | the last ``order`` - 1 words of a context)."""
        value = 1 / (len(self.words) + 1)
        for length in range(min(self.order, len(context) + 1)):
            part = tuple(context[len(context) - length :])
            counts = self._counts.get(part)
            if counts is None:
                break
            total = self._totals[part]
            spared = self.discount * len(counts) / total
            value = max(counts[word] - self.discount, 0) / total + spared * value
        return value

    def losses(self, text: str) -> list[float]:
        """The loss in nats of each word and mark of a text, and of its end."""
        row = self._row([w if w in self.words else _UNKNOWN for w in pieces_of(text)])
        start = self.order - 1
        return [
            -math.log(self.probability(row[place], row[place - start : place]))
            for place in range(start, len(row))
        ]


def mean_loss(model: WordModel, texts: Iterable[str]) -> float:
    """The mean loss in nats of all words and marks of some texts and of their ends."""
    found = [loss for text in texts for loss in model.losses(text)]
    return sum(found) / len(found)
