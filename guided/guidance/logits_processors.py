"""How end, repeated and unwanted tokens are favoured or barred before a choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from guided.guidance.decode import Rows


class LogitsProcessors(Protocol):
    """Changes next-token logits [R, V] for what they should not be left alone with."""

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        """The changed logits, or log-probabilities up to a constant."""
        ...


@dataclass(frozen=True)
class LogitScale:
    """The reference's factors on raw logits; what they do depends on the logits' sign.

    A favoured token's positive logit is multiplied and its negative one divided; a penalised one
    the other way round.  The ``end`` token is penalised by ``start_factor`` as the first token and
    favoured by ``end_factor`` later; tokens among a row's last ``window`` are penalised by
    ``repetition``, ``forbidden`` ones by ``forbidden_factor``.
    """

    end: int
    forbidden: tuple[int, ...] = ()
    end_factor: float = 1.01
    start_factor: float = 1.6
    repetition: float = 1.0
    forbidden_factor: float = 20.0
    window: int = 4

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        """Logits [R, V] with every factor applied."""
        factor = torch.ones_like(logits)
        recent = torch.zeros_like(factor, dtype=torch.bool)
        recent.scatter_(1, rows.tokens[:, -self.window :], True)
        factor = torch.where(recent, factor / self.repetition, factor)
        factor[:, self.end] *= self.end_factor if rows.index else 1 / self.start_factor
        if self.forbidden:
            factor[:, list(self.forbidden)] /= self.forbidden_factor
        return torch.where(logits > 0, logits * factor, logits / factor)


@dataclass(frozen=True)
class LogitBias:
    """Changes in nats, which do the same whatever the logits' level.

    The ``end`` token gets ``end_bonus`` once ``shortest`` tokens are written and is barred before;
    tokens among a row's last ``window`` lose ``repetition``; ``forbidden`` ones are barred.
    """

    end: int
    forbidden: tuple[int, ...] = ()
    end_bonus: float = 0.0
    repetition: float = 0.0
    window: int = 4
    shortest: int = 1

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        """Logits [R, V] with every change applied."""
        change = torch.zeros_like(logits)
        if self.repetition:
            change.scatter_(1, rows.tokens[:, -self.window :], -self.repetition)
        if self.forbidden:
            change[:, list(self.forbidden)] = float("-inf")
        change[:, self.end] += self.end_bonus if rows.index >= self.shortest else float("-inf")
        return logits + change
