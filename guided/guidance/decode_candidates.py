"""Cosines between targets and texts continued by tokens, each text embedded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class EndingScorer(Protocol):
    """Embeds continuations of texts."""

    def embed_endings(
        self, prefixes: Sequence[str], endings: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        """Unit vectors of every prefix continued by its endings."""
        ...


class Candidates:
    """The continuations of one step: each pair of text and token is embedded at its first use.

    ``texts`` are what each row has said; rows that say the same share their embeddings, whatever
    their target.  ``targets`` [R, D] are unit vectors.  ``piece`` gives the text of a token.
    """

    def __init__(
        self,
        scorer: EndingScorer,
        texts: Sequence[str],
        piece: Callable[[int], str],
        targets: Tensor,
        vocabulary: int,
    ) -> None:
        self._scorer = scorer
        self._piece = piece
        self._targets = targets
        self._texts = list(dict.fromkeys(texts))
        number = {text: place for place, text in enumerate(self._texts)}
        where = targets.device
        self._text_of = torch.tensor([number[text] for text in texts], device=where)
        self._known = torch.full((len(self._texts), vocabulary), -1, dtype=torch.long, device=where)
        self._embeddings = targets.new_zeros(0, targets.shape[1])

    def cosines(self, tokens: Tensor) -> Tensor:
        """Cosines [R, k] of each row's target with its text continued by tokens [R, k]."""
        pairs = self._text_of.unsqueeze(1).expand_as(tokens)
        missing = self._known[pairs, tokens] < 0
        if bool(missing.any()):
            self._embed(pairs[missing], tokens[missing])
        places = self._known[pairs, tokens]
        rows = [
            self._embeddings[place] @ target
            for place, target in zip(places, self._targets, strict=True)
        ]
        return torch.stack(rows)

    def embedding(self, tokens: Tensor) -> Tensor:
        """Embeddings [R, k, D] of each row's text continued by tokens [R, k]."""
        self.cosines(tokens)
        return self._embeddings[self._known[self._text_of.unsqueeze(1).expand_as(tokens), tokens]]

    def _embed(self, pairs: Tensor, tokens: Tensor) -> None:
        """Embed the continuations that are new: text number and token, one pair an entry."""
        new = torch.unique(torch.stack([pairs, tokens], dim=1), dim=0)
        listed: list[list[int]] = [[] for _ in self._texts]
        for text, token in new.tolist():
            listed[text].append(token)
        endings = [[self._piece(token) for token in row] for row in listed]
        found = torch.cat(self._scorer.embed_endings(self._texts, endings))
        start = len(self._embeddings)
        self._known[new[:, 0], new[:, 1]] = torch.arange(start, start + len(new), device=new.device)
        self._embeddings = torch.cat([self._embeddings, found.to(self._embeddings)])
