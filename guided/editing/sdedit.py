"""SDEdit: the image is noised and denoised towards the prompt.

Source: Meng et al. 2022 (SDEdit).
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guided.core.run import Step
from guided.editing.base import EditState
from guided.editing.denoising import PartialEditor, known_region, noise_key

if TYPE_CHECKING:
    from torch import Tensor


class Sdedit(PartialEditor):
    """Fresh noise at the level that the strength says; outside of a mask the source's own."""

    noise: float = noise_key(0.75)

    def denoised(
        self, state: EditState, prompts: Sequence[str], first: int
    ) -> Stream[Step[Any], None, Tensor]:
        """The denoising from evaluation ``first`` on."""
        latents = self.latents(state)
        fresh = state.seeds.normal(latents.shape[1:], "edit/noise", latents.device)
        noise = fresh.to(latents.dtype)
        sampler = self.sampler(
            state, self.bound(state, prompts, self.cfg), noise, first=first, latents=latents,
            known=known_region(state, latents, noise),
        )  # fmt: skip
        return sampler.steps()
