"""Refined delta: a short search from the delta mapper's change to where the texts point."""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guided.core.keys import option, recipe_only
from guided.core.loss_tables import LossTable
from guided.core.run import Step
from guided.editing.base import EditState, loss_table
from guided.editing.delta import Delta

if TYPE_CHECKING:
    from guided.core import delta as saved


class Refine(Delta):
    """The delta mapper, then some steps of Adam with the loss ``clip_delta``."""

    steps: int = option("steps of the search", 30, ge=1, was="refine_steps")
    rate: float = option("step size of the search", 0.03, gt=0, was="refine_rate")
    amount: float = recipe_only("how far to turn in CLIP's space", 0.6, gt=0)

    def usual_losses(self, *, masked: bool) -> list[LossTable]:
        """The turn of the image's embedding."""
        return [loss_table("clip_delta", amount=self.amount)]

    def propose(
        self, state: EditState, prompts: Sequence[str]
    ) -> Stream[Step[Any], None, saved.Delta]:
        """The search; it begins at the mapper's change."""
        from guided.editing.texts import TextDirections
        from guided.guidance.edit import LatentSearch, styleclip_adam

        objective, models = self.objective(state.sources), state.models
        towards = TextDirections(state.sources, self.template)
        begin = yield from super().propose(state, prompts)
        search = LatentSearch(
            generator=models.generator,
            scorer=models.scorer,
            objective=objective,
            steps=self.steps,
            update=styleclip_adam(self.rate),
            models=models.for_losses(objective),
            extras={"towards": towards, **({} if state.mask is None else {"mask": state.mask})},
            name="refine",
        )
        return (yield from search.propose(self.codes(state, "w"), prompts, begin))
