"""``guided generate --method unclip``: sample_prior a picture's embedding, then draw it.

The prior goes from words to the CLIP embedding of a picture that they are true of, the denoiser
from there to the picture.  What the words leave open is settled by the first, so pictures differ in
more than their noise.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guided.core.run import Step
from guided.errors import UsageError
from guided.tasks import _generate_diffusion as diffusion
from guided.tasks._generate_options import Options
from guided.tasks._generate_unclip_options import UnclipKeys
from guided.tasks._generation import rows_of
from guided.tasks.base import Steps, TaskContext

if TYPE_CHECKING:
    from torch import Tensor

    from guided.guidance.denoise import Denoising

#: The keys that are this method's.
OWN = diffusion.OWN | UnclipKeys.model_fields.keys()
idle = diffusion.idle
_LOCAL = "local-dir:"


def needs(options: Options) -> tuple[str, ...]:
    """The roles this method loads a model for."""
    roles = diffusion.needs(options)
    return roles if options.denoiser.startswith(_LOCAL) and not options.prior else (*roles, "prior")


def run(options: Options, ctx: TaskContext) -> Steps:
    """Make the pictures, in batches: Steps of the prior, then of the decoder."""
    if options.steps < 1:
        raise UsageError("steps = 0 leaves nothing but noise.", hint="Give --steps 1 or more.")
    diffusion.check(options)
    job = UnclipJob(options, ctx, ctx.models.of(options).unclip)
    rows = rows_of(options, ctx)
    yield from job.made(rows)
    return job.result()


@dataclass
class UnclipJob(diffusion.DiffusionJob):
    """A run of both stages; ``image`` [B, D] is what the prior imagined for the present batch."""

    image: Tensor | None = None
    cosines: list[float] = field(default_factory=list)

    def make(
        self, rows: Sequence[tuple[str, int]], done: int, total: int
    ) -> Stream[Step[Any], None, None]:
        """A batch of images: imagined first, then drawn."""
        yield from self.imagined(rows)
        yield from super().make(rows, done, total)

    def imagined(self, rows: Sequence[tuple[str, int]]) -> Stream[Step[Any], None, None]:
        """Imagine the embeddings of a batch."""
        from guided.core.seeds import Seeds
        from guided.guidance.prior_sampling import sample_prior

        options, pipe = self.options, self.model.pipe
        prompts, seeds = [prompt for prompt, _ in rows], Seeds(tuple(seed for _, seed in rows))
        apart = [options.negative] * len(rows)
        bound = pipe.condition(prompts, apart, both=options.prior_cfg > 1)
        wanted = bound.words.pooled[-len(rows) :]
        found = yield from sample_prior(
            bound, wanted, seeds, options.prior_steps, cfg=options.prior_cfg, tries=options.tries
        )
        self.image = found
        self.cosines = (found * wanted).sum(1).tolist()

    def _loop(self, rows: Sequence[tuple[str, int]]) -> Denoising:
        """The decoder's loop, told the embeddings in place of words, or beside them."""
        loop = super()._loop(rows)
        options = self.options
        texts = [prompt if options.reread else "" for prompt, _ in rows]
        apart = [options.negative] * len(rows)
        loop.model = self.model.bound(texts, apart, cfg=self.cfg, size=self.size, image=self.image)
        return loop

    def _beside(self, row: int) -> dict[str, Any]:
        """The cosine between the prompt and the imagined embedding."""
        return {"cosine": self.cosines[row]}
