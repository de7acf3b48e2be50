"""Searching a text-conditional GAN: the shared loop over {z, text} under any objective."""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from guided.core.objective import Candidate, LossContext, Objective
from guided.core.protocols import Generator, Latent, Scorer
from guided.core.run import Step
from guided.errors import ShapeError
from guided.guidance.optimise import optimise
from guided.guidance.updates import adam, ramp

Leaves = Literal["z", "text", "both"]


@dataclass(frozen=True, kw_only=True)
class GanSearch:
    """Moves z, the text feature, or both, until an objective is small.

    ``rate`` is Adam's step for z, whose numbers have unit variance; the text, a unit vector of D
    numbers, moves by rate / sqrt(D).  Rows never mix.
    """

    generator: Generator
    scorer: Scorer | None
    objective: Objective
    leaves: Leaves = "both"
    steps: int = 50
    rate: float = 0.05
    models: Mapping[str, Any] = field(default_factory=dict)

    def run(self, start: Latent, prompts: Sequence[str]) -> Stream[Step[Candidate], None, Latent]:
        """Yield a Step for each update and return the latent of least loss seen, row by row.

        Raises:
            ShapeError: another number of prompts than rows.
            CannotDo: a loss that misses a model, or a loss or gradient that is not finite.
        """
        rows = len(start["z"])
        if len(prompts) != rows:
            raise ShapeError(f"{len(prompts)} prompts were given for {rows} latents.")
        fixed = {name: leaf.detach() for name, leaf in start.items()}
        width = fixed["text"].shape[1] ** 0.5
        first = Candidate(fixed, self.generator.render)
        bound = self.objective.bind(LossContext(self.scorer, tuple(prompts), first, self.models))
        moving = {
            name: fixed[name] * (width if name == "text" else 1.0)
            for name in ("z", "text")
            if self.leaves in (name, "both")
        }

        def draw(leaves: Latent, progress: float) -> Candidate:
            scaled = {n: leaf / width if n == "text" else leaf for n, leaf in leaves.items()}
            return Candidate({**fixed, **scaled}, self.generator.render, progress, first)

        with torch.no_grad():
            best, least = fixed, bound(first)[0]
        update = adam(self.rate, schedule=ramp)
        for step in optimise(moving, draw, bound, update, self.steps, label="search"):
            draft = step.draft
            if draft is not None:
                with torch.no_grad():
                    total = bound(draft)[0]
                wins = total < least
                least = torch.where(wins, total, least)
                best = {
                    name: torch.where(wins[:, None], draft.latent[name], leaf)
                    for name, leaf in best.items()
                }
            yield step
        return best
