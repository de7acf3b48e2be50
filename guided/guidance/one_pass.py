"""Editing in one pass: a mapper's change, a global direction of StyleSpace, or a delta mapper's.

A prompt of several texts ("A | B::-0.5") asks for the sum of each text's own change, times its
weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Stream
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from guided.core.editing import Delta
from guided.core.prompts import parse
from guided.core.protocols import Latent
from guided.core.run import Step
from guided.errors import ShapeError
from guided.guidance.directions import channel_weights, fitted_relevance, style_change
from guided.guidance.edit import SpacedGenerator

#: Unit directions [B, D] of a text for pictures with unit features [B, D].
TextDirection = Callable[[str, Tensor], Tensor]


class Changes(Protocol):
    """A mapper as its net module reads it: a W+ code or StyleSpace codes to their change."""

    def __call__(self, codes: Any) -> Any:
        """The change of codes [B, rows, D], or of a list of codes [B, C_i]."""
        ...


@dataclass(frozen=True, kw_only=True)
class MapperEditor:
    """A mapper trained for one prompt, whatever prompt is given.

    ``change`` takes the W+ code, or with ``space`` "s" the list of StyleSpace codes.
    Source: Patashnik et al. 2021 (StyleCLIP), section 5.
    """

    generator: SpacedGenerator
    change: Changes
    space: str = "w"
    name: str = "mapper"
    rerun: bool = False

    def propose(self, start: Latent, prompts: Sequence[str]) -> Stream[Step[object], None, Delta]:
        """Yield one Step and return the change.

        Raises:
            ShapeError: a code of another size than the mapper was trained for.
            CannotDo: a StyleSpace latent and a W+ mapper.
        """
        codes = self.generator.in_space(start, "s" if self.space == "s" else "w")
        with torch.no_grad():
            try:
                change = self.change(codes["w"] if self.space == "w" else list(codes.values()))
            except RuntimeError as error:
                shapes = {name: list(leaf.shape) for name, leaf in codes.items()}
                raise ShapeError(f"This mapper does not fit the codes {shapes}: {error}") from error
        named = {"w": change} if self.space == "w" else dict(zip(codes, change, strict=True))
        yield Step(1, 1, self.name)
        return Delta(codes, named, self.name)


@dataclass(frozen=True, kw_only=True)
class DirectionEditor:
    """The StyleSpace change along the difference of two texts.

    ``relevance`` [channels, D] are the generator's channel statistics (``fs3``), ``deviations`` one
    [C_i] for each code, ``embed`` gives the unit features [B, D] of pictures and ``towards`` the
    unit directions of a text for them: the same for all where the other text is fixed.  ``beta`` is
    the threshold below which channels stay as they are; ``alpha`` scales the change.
    Source: Patashnik et al. 2021 (StyleCLIP), section 6.
    """

    generator: SpacedGenerator
    relevance: Tensor
    deviations: Sequence[Tensor]
    embed: Callable[[Tensor], Tensor]
    towards: TextDirection
    beta: float = 0.15
    alpha: float = 4.1
    name: str = "direction"
    rerun: bool = False

    def propose(self, start: Latent, prompts: Sequence[str]) -> Stream[Step[object], None, Delta]:
        """Yield a Step for each distinct text and return the change.

        Raises:
            CannotDo: beta above every channel's cosine with the text.
            ShapeError: statistics of another generator.
        """
        codes = self.generator.in_space(start, "s")
        colours = [i for i in range(len(codes)) if i % 3 == 1]
        channels = sum(len(d) for i, d in enumerate(self.deviations) if i not in colours)
        relevance = fitted_relevance(self.relevance, channels)
        parts = [parse(prompt) for prompt in prompts]
        texts = list(dict.fromkeys(text for each in parts for text, _ in each))
        with torch.no_grad():
            seen = self.embed(self.generator.render(codes)).to(relevance)
        known: dict[str, Tensor] = {}
        for index, text in enumerate(texts):
            known[text] = self.towards(text, seen).to(relevance)
            yield Step(index + 1, len(texts), self.name)

        def moved(row: int, text: str) -> list[Tensor]:
            weights = channel_weights(relevance, known[text][row], self.beta)
            return style_change(weights, self.deviations, colours)

        moves = [[(moved(row, text), w) for text, w in each] for row, each in enumerate(parts)]
        change = {
            name: self.alpha
            * torch.stack(
                [torch.stack([w * found[i] for found, w in each]).sum(0) for each in moves]
            )
            for i, name in enumerate(codes)
        }
        return Delta(codes, change, self.name)


class Deltas(Protocol):
    """A delta mapper: codes [B, rows, D], features and directions [B, E] to a change of codes."""

    def __call__(self, codes: Tensor, seen: Tensor, directions: Tensor) -> Tensor:
        """The change [B, rows, D]."""
        ...


@dataclass(frozen=True, kw_only=True)
class DeltaEditor:
    """One network for every prompt: from a portrait and a text direction to a change of W+.

    ``embed`` gives the unit features [B, E] of pictures, ``towards`` the unit directions [B, E] of
    a text for pictures with such features.
    Source: Lyu et al. 2023 (DeltaEdit, arXiv 2303.06285), section 3.
    """

    generator: SpacedGenerator
    change: Deltas
    embed: Callable[[Tensor], Tensor]
    towards: TextDirection
    name: str = "delta"
    rerun: bool = False

    def propose(self, start: Latent, prompts: Sequence[str]) -> Stream[Step[object], None, Delta]:
        """Yield one Step and return the change.

        Raises:
            CannotDo: a StyleSpace latent, which has no W+ code.
            ShapeError: codes of another size than the mapper was trained for, or another number
                of prompts than rows.
        """
        codes = self.generator.in_space(start, "w")
        if len(prompts) != codes["w"].shape[0]:
            raise ShapeError(
                f"{len(prompts)} prompts were given for {codes['w'].shape[0]} latents."
            )
        parts = [(row, *part) for row, prompt in enumerate(prompts) for part in parse(prompt)]
        rows = torch.tensor([row for row, _, _ in parts], device=codes["w"].device)
        with torch.no_grad():
            seen = self.embed(self.generator.render(codes))
            texts = dict.fromkeys(text for _, text, _ in parts)
            known = {text: self.towards(text, seen) for text in texts}
            directions = torch.stack([known[text][row] for row, text, _ in parts]).to(seen)
            each = self.change(codes["w"][rows], seen[rows], directions)
            weights = each.new_tensor([weight for _, _, weight in parts])[:, None, None]
            change = torch.zeros_like(codes["w"]).index_add(0, rows, weights * each)
        yield Step(1, 1, self.name)
        return Delta(codes, {"w": change}, self.name)
