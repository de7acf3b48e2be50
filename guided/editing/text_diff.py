"""Text diff (unCLIP): the noise stays, the image's embedding turns along a difference of texts.

For models that are told embeddings of images.
Source: Ramesh et al. 2022 (unCLIP), section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from guided.core.keys import option
from guided.core.run import Step
from guided.editing.base import EditState, Sources
from guided.editing.denoising import DenoisingEditor, cfg_key, steps_key

if TYPE_CHECKING:
    from torch import Tensor


_ROWS = 8  # that are denoised together, of several strengths


class TextDiff(DenoisingEditor):
    """One inversion for all prompts and strengths; below 0 the embedding turns the other way."""

    has_opposite: ClassVar[bool] = True
    tried: ClassVar[Sequence[float]] = (0.6, 1.0, 1.4)

    steps: int = steps_key(12)
    cfg: float = cfg_key(2.0)
    max_angle: float = option(
        "the part of a right angle that strength 1 turns by", 0.35, gt=0, le=1
    )
    template: list[str] = option("sentences with {} for a text", [])

    def start(self, sources: Sources) -> Stream[Step[Any], None, EditState]:
        """The embeddings of the images and the noise that gives them.

        Raises:
            CannotDo: a model that takes no embeddings of images.
            CorruptWeights: a model that takes those of another CLIP.
        """
        from guided.generators.diffusion.source import ddim_scheduler
        from guided.guidance.inversion import invert_noise

        state = EditState.of(sources)
        empty = [""] * len(state.rows)
        bound = sources.models.denoiser_of_images.bound(empty, image=state.features)
        state.known["noise"] = yield from invert_noise(
            bound, ddim_scheduler(sources.models.denoiser), self.latents(state), state.seeds,
            self.steps,
        )  # fmt: skip
        return state

    def render(
        self, state: EditState, prompts: Sequence[str], strength: float
    ) -> Stream[Step[Any], None, Tensor]:
        """The noise denoised again, told another embedding."""
        (images,) = yield from self.sweep(state, prompts, [strength])
        return images

    def sweep(
        self, state: EditState, prompts: Sequence[str], strengths: Sequence[float]
    ) -> Stream[Step[Any], None, list[Tensor]]:
        """The same at several strengths, some of them in one batch, which costs less."""
        images = {0.0: state.images}
        moved = [strength for strength in dict.fromkeys(strengths) if strength]
        each = max(1, _ROWS // len(prompts))
        for first in range(0, len(moved), each):
            part = moved[first : first + each]
            rows = state.of_rows([*range(len(prompts))] * len(part))
            amounts = [strength for strength in part for _ in prompts]
            rendered = yield from self._rendered(rows, [*prompts] * len(part), amounts)
            images |= dict(zip(part, rendered.split(len(prompts)), strict=True))  # type: ignore[no-untyped-call]
        return [images[strength] for strength in strengths]

    def _rendered(
        self, state: EditState, prompts: Sequence[str], strengths: Sequence[float]
    ) -> Stream[Step[Any], None, Tensor]:
        """The images of the rows, each at a strength of its own."""
        from guided.guidance.slerp import slerp_towards

        directions = self._directions(state, prompts)
        reach = [reach_of(prompt) for prompt in prompts]
        turns = [s * r * self.max_angle for s, r in zip(strengths, reach, strict=True)]
        amount = directions.new_tensor(turns)
        image, empty = slerp_towards(state.features, directions, amount), [""] * len(prompts)
        model = state.models.denoiser.bound(empty, cfg=self.cfg, image=image)
        noise = state.picked(state.known["noise"])
        sampler = self.sampler(state, model, self.latents(state), sample=noise)
        latents = yield from sampler.steps()
        return self.decoded(state, latents)

    def _directions(self, state: EditState, prompts: Sequence[str]) -> Tensor:
        """The unit directions [B, D] of the prompts, from what the images show."""
        from guided.core.prompts import PLAIN, text_direction

        texts = self.neutral_texts(state, prompts)
        templates = tuple(self.template) or PLAIN
        directions = text_direction(state.sources.scorer, prompts, texts, templates)
        return directions.to(state.features)


def reach_of(prompt: str) -> float:
    """How much further a prompt of several texts turns than one text does, so that the text of most
    weight is turned to as far as if it were alone, were what the texts change orthogonal.

    >>> round(reach_of("pink hair | a hat"), 4)
    1.4142
    """
    from guided.core.prompts import parse

    weights = [abs(weight) for _, weight in parse(prompt)]
    return math.hypot(*weights) / max(weights)
