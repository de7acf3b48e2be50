"""Editing in one pass: a mapper's change, a global direction of StyleSpace, or a delta mapper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Stream
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from guided.core.editing import Delta
from guided.core.protocols import Latent
from guided.core.run import Step
from guided.errors import ShapeError
from guided.guidance.directions import channel_weights, fitted_relevance, style_change
from guided.guidance.edit import SpacedGenerator

TextDirection = Callable[[str], Tensor]


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
    """The same StyleSpace change for every picture, from the difference of two texts.

    ``relevance`` [channels, D] are the generator's channel statistics (``fs3``), ``deviations`` one
    [C_i] for each code, ``towards`` gives the unit text direction [D] of a prompt.  ``beta`` is the
    threshold below which channels stay as they are; ``alpha`` scales the change.
    Source: Patashnik et al. 2021 (StyleCLIP), section 6.
    """

    generator: SpacedGenerator
    relevance: Tensor
    deviations: Sequence[Tensor]
    towards: TextDirection
    beta: float = 0.15
    alpha: float = 4.1
    name: str = "direction"
    rerun: bool = False

    def propose(self, start: Latent, prompts: Sequence[str]) -> Stream[Step[object], None, Delta]:
        """Yield a Step for each distinct prompt and return the change.

        Raises:
            CannotDo: beta above every channel's cosine with the text.
            ShapeError: statistics of another generator.
        """
        codes = self.generator.in_space(start, "s")
        colours = [i for i in range(len(codes)) if i % 3 == 1]
        channels = sum(len(d) for i, d in enumerate(self.deviations) if i not in colours)
        relevance = fitted_relevance(self.relevance, channels)
        distinct = list(dict.fromkeys(prompts))
        found: dict[str, list[Tensor]] = {}
        for index, prompt in enumerate(distinct):
            weights = channel_weights(relevance, self.towards(prompt).to(relevance), self.beta)
            found[prompt] = style_change(weights, self.deviations, colours)
            yield Step(index + 1, len(distinct), self.name)
        change = {
            name: self.alpha * torch.stack([found[prompt][i] for prompt in prompts])
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

    ``embed`` gives the unit features [B, E] of pictures, ``towards`` the unit text direction [E]
    of a prompt.
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
        known = {prompt: self.towards(prompt) for prompt in dict.fromkeys(prompts)}
        with torch.no_grad():
            seen = self.embed(self.generator.render(codes))
            directions = torch.stack([known[prompt] for prompt in prompts]).to(seen)
            change = self.change(codes["w"], seen, directions)
        yield Step(1, 1, self.name)
        return Delta(codes, {"w": change}, self.name)
