from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from guided.core.seeds import Seeds
from guided.guidance.decode_candidates import Candidates


class Letters:
    """Embeds a text by its letters, and counts what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def of(self, text: str) -> Tensor:
        counts = torch.tensor([1.0 + text.count(letter) for letter in "abcde"])
        return functional.normalize(counts, dim=0)

    def embed_endings(
        self, prefixes: Sequence[str], endings: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        self.asked += [p + e for p, row in zip(prefixes, endings, strict=True) for e in row]
        return [
            torch.stack([self.of(p + e) for e in row]) if row else torch.zeros(0, 5)
            for p, row in zip(prefixes, endings, strict=True)
        ]


def test_cosines_are_those_of_the_texts_and_each_is_embedded_once() -> None:
    scorer, targets = Letters(), functional.normalize(Seeds.of(0, 3).normal((5,), "t"), dim=1)
    texts = ["ab", "c", "ab"]
    candidates = Candidates(scorer, texts, "abcde".__getitem__, targets, 5)
    tokens = torch.tensor([[0, 3], [4, 4], [3, 2]])
    found = candidates.cosines(tokens)
    for row, text in enumerate(texts):
        for column, token in enumerate(tokens[row].tolist()):
            expected = scorer.of(text + "abcde"[token]) @ targets[row]
            assert torch.allclose(found[row, column], expected)
    assert sorted(scorer.asked) == ["aba", "abc", "abd", "ce"]
    assert torch.equal(candidates.cosines(tokens.flip(1)), found.flip(1))
    candidates.cosines(torch.tensor([[0, 1], [4, 0], [1, 1]]))
    assert sorted(scorer.asked[4:]) == ["abb", "ca"]


def test_embeddings_have_the_shape_of_the_tokens() -> None:
    scorer = Letters()
    candidates = Candidates(scorer, ["a", "b"], "abcde".__getitem__, torch.ones(2, 5), 5)
    found = candidates.embedding(torch.tensor([[1, 2, 3], [0, 0, 4]]))
    assert found.shape == (2, 3, 5)
    assert torch.allclose(found[1, 2], scorer.of("be"))
