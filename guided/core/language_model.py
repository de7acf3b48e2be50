"""The nouns of loops over words: a language model, what a loss sees, and scored continuations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from guided.core.protocols import Latent


@dataclass(frozen=True)
class LanguageModelOutput:
    """What a language model says after reading tokens.

    ``logits`` [B, V] are for the token after the last one; ``context`` holds the keys and values
    of all tokens read so far, named leaves [B, heads, positions, width] that can be edited.
    """

    logits: Tensor
    context: Latent


@runtime_checkable
class LanguageModel(Protocol):
    """Predicts the next token from tokens and an editable key/value context."""

    name: str
    vocabulary: int
    positions: int
    begin: int

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, without the begin token."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        ...

    def read(self, tokens: Tensor, context: Latent | None = None) -> LanguageModelOutput:
        """The reading after tokens [B, T] that follow a context; differentiable in the context."""
        ...


@runtime_checkable
class Continuations(Protocol):
    """Scores tokens as the next word of each row's text."""

    def cosines(self, tokens: Tensor) -> Tensor:
        """Cosines [B, k] between each row's target and its text continued by tokens [B, k]."""
        ...


class TextCandidate:
    """What a loss over words sees: the next-token distributions with and without guidance.

    ``think`` gives the guided logits [B, V]; it runs at the first touch, so a loop that only
    needs its last candidate pays for no other.  ``plain`` [B, V] are the unguided
    log-probabilities.
    """

    def __init__(self, think: Callable[[], Tensor], plain: Tensor, progress: float = 0.0) -> None:
        self._think = think
        self.plain = plain
        self.progress = progress

    @cached_property
    def logits(self) -> Tensor:
        """The guided logits [B, V]."""
        return self._think()

    @cached_property
    def log_probabilities(self) -> Tensor:
        """The guided log-probabilities [B, V]."""
        return torch.log_softmax(self.logits, dim=-1)
