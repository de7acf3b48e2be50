"""Editing by optimisation: follow an objective from the start's latent, return the change."""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from guided.core.delta import Delta
from guided.core.objective import Candidate, LossContext, Objective
from guided.core.protocols import Generator, Latent, Scorer
from guided.core.run import Step
from guided.errors import ShapeError
from guided.guidance.optimise import optimise
from guided.guidance.updates import Update, adam, ramp

Space = Literal["w", "s"]


class SpacedGenerator(Generator, Protocol):
    """A generator whose latents have more than one space, with leaves an edit may move."""

    def in_space(self, latent: Latent, space: Space) -> Latent:
        """The same picture's latent in another space."""
        ...

    def movable(self, space: Space) -> list[str]:
        """The leaves an edit may move."""
        ...


def styleclip_adam(rate: float = 0.1) -> Update:
    """Adam with the rise and fall of step size that StyleCLIP's optimisation uses."""
    return adam(rate, schedule=ramp)


@dataclass(frozen=True, kw_only=True)
class LatentSearch:
    """Adam on W+ ("w") or StyleSpace ("s") codes until ``objective`` is small.

    ``models`` and ``extras`` are what its losses ask for (``identity``; ``mask``); the rows of
    an extra go with the rows of the start.  Rows never mix: a batch of
    images and prompts gives what each would give alone.
    Source: Patashnik et al. 2021 (StyleCLIP), section 4.
    """

    generator: SpacedGenerator
    scorer: Scorer | None
    objective: Objective
    space: Space = "w"
    steps: int = 300
    update: Update = field(default_factory=styleclip_adam)
    models: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    name: str = "optimise"

    def propose(
        self, start: Latent, prompts: Sequence[str], begin: Delta | None = None
    ) -> Stream[Step[Any], None, Delta]:
        """Yield a Step for each update and return the change after the last.

        The search begins at the start, or with the change ``begin`` of it.

        Raises:
            ShapeError: another number of prompts than rows.
            CannotDo: a loss that misses a model, or a loss or gradient that is not finite.
        """
        codes = self.generator.in_space(start, self.space)
        rows = next(iter(codes.values())).shape[0]
        if len(prompts) != rows:
            raise ShapeError(f"{len(prompts)} prompts were given for {rows} latents.")
        fixed = {name: leaf.detach() for name, leaf in codes.items()}
        first = Candidate(fixed, self.generator.render)
        scene = LossContext(self.scorer, tuple(prompts), first, self.models, self.extras)
        bound = self.objective.bind(scene)

        def draw(leaves: Latent, progress: float) -> Candidate:
            return Candidate({**fixed, **leaves}, self.generator.render, progress, first)

        final = fixed if begin is None else {**fixed, **begin.at(1.0)}
        moving = {name: final[name] for name in self.generator.movable(self.space)}
        for step in optimise(moving, draw, bound, self.update, self.steps, label=self.name):
            final = step.draft.latent if step.draft is not None else final
            yield step
        return Delta.between(fixed, final, self.name)


def redraw(generator: Generator, delta: Delta, strength: float | Sequence[float]) -> Tensor:
    """Pictures [B, 3, H, W] of a change at a strength: one render, no new search."""
    with torch.no_grad():
        return generator.render(delta.at(strength))
