"""``guided generate --method unclip``: imagine a picture's embedding, then draw it.

The prior goes from words to the CLIP embedding of a picture that they are true of, the denoiser
from there to the picture.  What the words leave open is settled by the first, so pictures differ in
more than their noise.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.run import Result, Step
from guided.errors import CannotDo, UsageError
from guided.tasks import _generate_diffusion as diffusion
from guided.tasks._generate_options import Options
from guided.tasks.base import Steps, Workbench

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.diffusion import Diffusion
    from guided.guidance.denoise import Denoising

_LOCAL = "local-dir:"


def needs(options: Options) -> tuple[str, ...]:
    """The roles this method loads a model for."""
    roles = diffusion.needs(options)
    return roles if options.denoiser.startswith(_LOCAL) and not options.prior else (*roles, "prior")


def run(options: Options, bench: Workbench) -> Steps:
    """Make the pictures, in batches: Steps of the prior, then of the decoder."""
    if options.steps < 1:
        raise UsageError("steps = 0 leaves nothing but noise.", hint="Give --steps 1 or more.")
    job = UnclipJob(options, bench, open_model(options, bench))
    rows = [(prompt, bench.seed + i) for prompt in options.prompts for i in range(options.count)]
    for first in range(0, len(rows), options.batch):
        part = rows[first : first + options.batch]
        yield from job.imagined(part)
        yield from job.make(part, first, len(rows))
    return job.result()


def open_model(options: Options, bench: Workbench) -> Diffusion:
    """Both stages: a folder that was saved whole, or a denoiser with --prior or the kit's prior.

    Raises:
        CannotDo: no prior is named, or a denoiser that takes no embeddings of pictures.
        MissingWeights: named, but not on this computer.
        CorruptWeights: a prior of another CLIP than the denoiser's.
    """
    from guided.generators.unclip import clip_of, is_whole, load_prior, load_unclip, with_prior

    folder = Path(options.denoiser.removeprefix(_LOCAL))
    if options.denoiser.startswith(_LOCAL) and is_whole(folder) and not options.prior:
        return load_unclip(folder, bench.device)
    decoder = diffusion.open_model(options, bench)
    wanted = options.prior or bench.kit.get("prior", "")
    if not wanted:
        raise CannotDo("No prior is named.", hint="Give --prior NAME, or --kit portraits.")
    prior = load_prior(wanted, clip_of(decoder_folder(options.denoiser, bench)), bench.device)
    return with_prior(decoder, prior)


def decoder_folder(named: str, bench: Workbench) -> Path:
    """The folder of the denoiser of that name, or of the kit's."""
    from guided.zoo import find

    wanted = named or bench.kit.get("denoiser", "")
    if wanted.startswith(_LOCAL):
        return Path(wanted.removeprefix(_LOCAL))
    return find(wanted, "denoiser", online=bench.online).folder


@dataclass
class UnclipJob(diffusion.Job):
    """A run of both stages; ``image`` [B, D] is what the prior imagined for the present batch."""

    image: Tensor | None = None
    cosines: list[float] = field(default_factory=list)

    def imagined(self, rows: Sequence[tuple[str, int]]) -> Stream[Step[Any], None, None]:
        """Imagine the embeddings of a batch."""
        from guided.core.seeds import Seeds
        from guided.guidance.imagine import imagine

        options, pipe = self.options, self.model.pipe
        prompts, seeds = [prompt for prompt, _ in rows], Seeds(tuple(seed for _, seed in rows))
        apart = [options.negative] * len(rows)
        bound = pipe.told(prompts, apart, both=options.prior_cfg > 1)
        wanted = bound.words.pooled[-len(rows) :]
        found = yield from imagine(
            bound, wanted, seeds, options.prior_steps, cfg=options.prior_cfg, tries=options.tries
        )
        self.image = found
        self.cosines += (found * wanted).sum(1).tolist()

    def _loop(self, rows: Sequence[tuple[str, int]]) -> Denoising:
        """The decoder's loop, told the embeddings in place of words, or beside them."""
        loop = super()._loop(rows)
        options = self.options
        texts = [prompt if options.reread else "" for prompt, _ in rows]
        apart = [options.negative] * len(rows)
        loop.model = self.model.bound(texts, apart, cfg=self.cfg, size=self.size, image=self.image)
        return loop

    def result(self) -> Result:
        """The answer, with the cosines between words and imagined embeddings."""
        found = super().result()
        for entry, cosine in zip(found.answer["results"], self.cosines, strict=True):
            entry["cosine"] = cosine
        return found
