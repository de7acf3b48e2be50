"""Delta mapper (DeltaEdit): one network for every prompt, from image and text direction to W+.

Source: Lyu et al. 2023 (DeltaEdit, arXiv 2303.06285), section 3.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guided.core.keys import option
from guided.core.run import Step
from guided.editing.base import EditState
from guided.editing.latent import LatentEditor

if TYPE_CHECKING:
    from guided.core import delta as saved


class Delta(LatentEditor):
    """The change that a delta mapper gives; a prompt of several texts asks for their sum."""

    delta: str = option("a delta mapper's name or file", "")
    template: list[str] = option("sentences with {} for a text", [])

    def roles(self) -> tuple[str, ...]:
        """The generator and the mapper."""
        return ("generator", "delta")

    def propose(
        self, state: EditState, prompts: Sequence[str]
    ) -> Stream[Step[Any], None, saved.Delta]:
        """One pass of the mapper.

        Raises:
            CannotDo: a StyleSpace latent, which has no W+ code.
            ShapeError: codes of another size than the mapper was trained for.
        """
        import torch

        from guided.core import delta as saved
        from guided.core.prompts import parse
        from guided.editing.texts import TextDirections

        codes, mapper = self.codes(state, "w"), state.models.delta
        towards = TextDirections(state.sources, self.template)
        parts = [(row, *part) for row, prompt in enumerate(prompts) for part in parse(prompt)]
        rows = torch.tensor([row for row, _, _ in parts], device=codes["w"].device)
        with torch.no_grad():
            features = self.rendered_features(state, "w")
            texts = dict.fromkeys(text for _, text, _ in parts)
            known = {text: towards(text, features) for text in texts}
            directions = torch.stack([known[text][row] for row, text, _ in parts]).to(features)
            each = mapper(codes["w"][rows], features[rows], directions)
            weights = each.new_tensor([weight for _, _, weight in parts])[:, None, None]
            change = torch.zeros_like(codes["w"]).index_add(0, rows, weights * each)
        yield Step(1, 1, "delta")
        return saved.Delta(codes, {"w": change}, "delta")
