"""Latent optimisation (StyleCLIP): a search for the latent whose image fits the prompt.

Source: Patashnik et al. 2021 (StyleCLIP), section 4.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from guided.core.keys import option, recipe_only
from guided.core.loss_tables import LossTable
from guided.core.run import Step
from guided.editing.base import EditState, loss_table
from guided.editing.latent import LatentEditor

if TYPE_CHECKING:
    from guided.core.delta import Delta
    from guided.generators.stylegan2 import Space


class Optimise(LatentEditor):
    """Adam on W+ or StyleSpace codes until the losses are small.

    ``keep_identity``, ``near`` and ``keep_outside`` are the weights of usual losses.
    """

    steps: int = option("steps of the search", 100, ge=1, le=10_000)
    rate: float = option("step size of the search", 0.1, gt=0)
    space: Literal["auto", "w", "s"] = option("where to search: W+ or StyleSpace", "auto")
    preprocess: Literal["clip", "styleclip"] = recipe_only("how CLIP sees the image", "clip")
    keep_identity: float = recipe_only("weight of the loss identity", 0.0, ge=0)
    near: float = recipe_only("weight of the loss latent_l2", 0.002, ge=0)
    keep_outside: float = recipe_only("weight of the loss masked_l1, with a mask", 10.0, ge=0)

    @property
    def wanted_space(self) -> Literal["auto", "w", "s"]:
        """As the option says."""
        return self.space

    def usual_losses(self, *, masked: bool) -> list[LossTable]:
        """CLIP, and what keeps the rest."""
        weights = {
            "identity": self.keep_identity,
            "latent_l2": self.near,
            "masked_l1": self.keep_outside if masked else 0.0,
        }
        keep = [loss_table(kind, weight=weight) for kind, weight in weights.items() if weight > 0]
        return [loss_table("clip", preprocess=self.preprocess), *keep]

    def propose(self, state: EditState, prompts: Sequence[str]) -> Stream[Step[Any], None, Delta]:
        """A search from the start of each row."""
        from guided.guidance.edit import LatentSearch, styleclip_adam

        space: Space = "w" if "w" in state.known["start"] else "s"
        objective, models = self.objective(state.sources), state.models
        search = LatentSearch(
            generator=models.generator,
            scorer=models.scorer,
            objective=objective,
            space=space,
            steps=self.steps,
            update=styleclip_adam(self.rate),
            models=models.for_losses(objective),
            extras={} if state.mask is None else {"mask": state.mask},
        )
        return (yield from search.propose(self.codes(state, space), prompts))
