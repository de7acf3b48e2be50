"""An editor as a user's own package holds it: one file, with an option of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from guided.core.keys import option
from guided.editing.base import Editor, EditState

COLORS = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0)}


class Tint(Editor):
    """Blends each image with the color that its prompt names."""

    amount: float = option("how much of the color strength 1 takes", 0.5, gt=0, le=1)

    def render(self, state: EditState, prompts: Sequence[str], strength: float) -> torch.Tensor:
        """Linear blending."""
        colors = [COLORS[prompt.split()[0]] for prompt in prompts]
        full = torch.tensor(colors).view(-1, 3, 1, 1).expand_as(state.images)
        return state.images.lerp(full, min(1.0, strength * self.amount))
