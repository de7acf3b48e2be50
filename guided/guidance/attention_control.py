"""Edits by the words' attention: what a source's words look at, an edit's words look at too.

Rows come in pairs, B sources and then B targets that are made together.  During the first part of a
run the targets' cross-attention is the sources', moved to the words they share; words that are new
keep their own ("refine"), or take the place of those they stand for ("replace"); single words count
more or less ("reweight").  Self-attention is the sources' during a part of its own.
Source: Hertz et al. 2023 (prompt-to-prompt).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal

import torch
from torch import Tensor

from guided.errors import CannotDo, ShapeError, UsageError
from guided.guidance.denoiser import Condition
from guided.nets.attention import PlainAttention

Way = Literal["replace", "refine"]


@dataclass(frozen=True)
class Alignment:
    """Which source tokens the targets' tokens look through.

    ``moves`` [B, L, L] hands a source token's attention (rows) to target tokens (columns);
    ``shared`` [B, L] is 1 for target tokens that take it and 0 for those that keep their own;
    ``weights`` [B, L] multiply a target token's attention.
    """

    moves: Tensor
    shared: Tensor
    weights: Tensor

    @classmethod
    def of(
        cls,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        way: Way,
        length: int,
    ) -> Alignment:
        """The alignment of token ids, each at most ``length`` long.

        Raises:
            ShapeError: another number of targets than sources, or more tokens than ``length``.
        """
        if len(sources) != len(targets):
            raise ShapeError(f"{len(targets)} targets were given for {len(sources)} sources.")
        if max(map(len, [*sources, *targets]), default=0) > length:
            raise ShapeError(f"There are more tokens than {length}.")
        moves = torch.zeros(len(sources), length, length)
        shared = torch.zeros(len(sources), length)
        for row, (one, two) in enumerate(zip(sources, targets, strict=True)):
            match = SequenceMatcher(None, list(one), list(two), autojunk=False)
            for kind, a, b, c, d in match.get_opcodes():
                if kind == "equal":
                    for i, j in zip(range(a, b), range(c, d), strict=True):
                        moves[row, i, j] = shared[row, j] = 1
                elif kind == "replace" and way == "replace":
                    moves[row, a:b, c:d] = _spread(b - a, d - c)
                    shared[row, c:d] = 1
        return cls(moves, shared, torch.ones_like(shared))

    def reweighted(self, targets: Sequence[Sequence[int]], word: Sequence[int], by: float) -> Any:
        """The alignment in which a word's tokens, wherever targets have them, count ``by`` as much.

        Raises:
            UsageError: a word that no target has.
        """
        weights, found = self.weights.clone(), False
        for row, ids in enumerate(targets):
            for place in range(len(ids) - len(word) + 1):
                if list(ids[place : place + len(word)]) == list(word):
                    weights[row, place : place + len(word)] *= by
                    found = True
        if not found:
            raise UsageError("A word to reweight is in none of the prompts.")
        return Alignment(self.moves, self.shared, weights)


def _spread(sources: int, targets: int) -> Tensor:
    """How the attention of some tokens is handed to others in their place; the sum is kept."""
    table = torch.zeros(sources, targets)
    most = max(sources, targets)
    for k in range(most):
        table[k * sources // most, k * targets // most] += 1
    return table / table.sum(1, keepdim=True)


@dataclass
class Control:
    """Rules for paired rows: ``cross`` and ``own`` are the parts of a run in which cross- and
    self-attention come from the sources.  ``progress`` is the loop's.
    """

    alignment: Alignment
    cross: float = 0.8
    own: float = 0.4
    progress: float = 0.0

    def __call__(self, probabilities: Tensor, *, words: bool) -> Tensor:
        """Attention [N, heads, Q, L] of which the last 2 B rows are sources and targets."""
        count = len(self.alignment.shared)
        if probabilities.shape[0] not in (2 * count, 4 * count):
            raise ShapeError(f"Attention of {probabilities.shape[0]} rows is not of {count} pairs.")
        before, one, two = (
            probabilities[: -2 * count], probabilities[-2 * count : -count],
            probabilities[-count:],
        )  # fmt: skip
        if not words:
            return torch.cat([before, one, one]) if self.progress < self.own else probabilities
        length = one.shape[3]
        moves = self.alignment.moves[:, :length, :length].to(one)
        shared = self.alignment.shared[:, None, None, :length].to(one)
        weights = self.alignment.weights[:, None, None, :length].to(one)
        if self.progress < self.cross:
            through = torch.einsum("bhqi,bij->bhqj", one, moves)
            two = shared * through + (1 - shared) * two
        return torch.cat([before, one, weights * two])


@dataclass
class Controlled:
    """A model under a Control, for as long as ``controlled`` lasts."""

    model: Condition
    control: Control
    evaluations: int
    done: int = field(default=0)

    @property
    def embeds_guidance(self) -> bool:
        """Whether the model was told the scale of guidance."""
        return bool(getattr(self.model, "embeds_guidance", False))

    def predict(self, given: Tensor, time: Any) -> Tensor:
        """The model's outputs; counts evaluations."""
        self.control.progress = self.done / self.evaluations
        self.done += 1
        return self.model.predict(given, time)

    def decode_latents(self, latents: Tensor, decode: Any) -> Tensor:
        """The model's pictures."""
        return self.model.decode_latents(latents, decode)


@contextlib.contextmanager
def controlled(
    net: Any, model: Condition, control: Control, evaluations: int
) -> Iterator[Controlled]:
    """The model of a net (a UNet or a transformer of diffusers') under a Control within ``with``.

    Raises:
        CannotDo: a net whose attention cannot be reached.
    """
    processors = getattr(net, "attn_processors", None)
    if not processors or not hasattr(net, "set_attn_processor"):
        raise CannotDo(
            f"The attention of a {type(net).__name__} cannot be reached.",
            hint="Take --method ddpm or sdedit.",
        )
    before = dict(processors)
    net.set_attn_processor({name: PlainAttention(control) for name in before})
    try:
        yield Controlled(model, control, evaluations)
    finally:
        net.set_attn_processor(before)
