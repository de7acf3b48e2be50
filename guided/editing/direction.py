"""StyleSpace global direction (StyleCLIP): channels changed along the difference of two texts.

Source: Patashnik et al. 2021 (StyleCLIP), section 6.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guided.core.keys import option, recipe_only
from guided.core.run import Step
from guided.editing.base import EditState
from guided.editing.latent import LatentEditor

if TYPE_CHECKING:
    from torch import Tensor

    from guided.core.delta import Delta
    from guided.models import Models

_SAMPLES = 2048  # random codes behind the deviation of each StyleSpace channel


class Direction(LatentEditor):
    """Channels that CLIP says do what the texts ask for, by the generator's statistics (``fs3``).

    ``beta`` is the threshold below which channels stay as they are; ``alpha`` scales the change.
    """

    statistics: str = option("channel statistics, such as fs3.npy", "")
    template: list[str] = option("sentences with {} for a text", [])
    alpha: float = recipe_only("factor of the change", 4.1)
    beta: float = recipe_only("cosine below which a channel is left alone", 0.15, ge=0)

    def roles(self) -> tuple[str, ...]:
        """The generator and its statistics, where no file of them is given."""
        return ("generator",) if self.statistics else ("generator", "directions")

    def propose(self, state: EditState, prompts: Sequence[str]) -> Stream[Step[Any], None, Delta]:
        """A Step for each distinct text, and the change.

        Raises:
            CannotDo: beta above every channel's cosine with the text.
            ShapeError: statistics of another generator.
        """
        import torch

        from guided.core.delta import Delta
        from guided.core.prompts import parse
        from guided.editing.texts import TextDirections
        from guided.guidance.directions import channel_weights, fitted_relevance, style_change

        codes = self.codes(state, "s")
        deviations, towards = (
            _deviations(state.models),
            TextDirections(state.sources, self.template),
        )
        colors = [i for i in range(len(codes)) if i % 3 == 1]
        channels = sum(len(d) for i, d in enumerate(deviations) if i not in colors)
        relevance = fitted_relevance(state.models.directions, channels)
        parts = [parse(prompt) for prompt in prompts]
        texts = list(dict.fromkeys(text for each in parts for text, _ in each))
        features = self.rendered_features(state, "s").to(relevance)
        known: dict[str, Tensor] = {}
        for index, text in enumerate(texts):
            known[text] = towards(text, features).to(relevance)
            yield Step(index + 1, len(texts), "direction")

        def moved(row: int, text: str) -> list[Tensor]:
            weights = channel_weights(relevance, known[text][row], self.beta)
            return style_change(weights, deviations, colors)

        moves = [[(moved(row, text), w) for text, w in each] for row, each in enumerate(parts)]
        change = {
            name: self.alpha
            * torch.stack([torch.stack([w * each[i] for each, w in row]).sum(0) for row in moves])
            for i, name in enumerate(codes)
        }
        return Delta(codes, change, "direction")


def _deviations(models: Models) -> list[Tensor]:
    """The standard deviation [C_i] of each StyleSpace code over random portraits."""
    from guided.core.seeds import Seeds

    generator = models.generator

    def measure() -> list[Tensor]:
        start = generator.start(Seeds.of(0, _SAMPLES), truncation=0.7)
        return [code.std(0) for code in generator.in_space(start, "s").values()]

    return models.once(("deviations", models.named("generator")), measure)
