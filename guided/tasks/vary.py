"""Vary pictures: the same content drawn anew, on the way to another picture, or towards words.

A picture is kept as the CLIP embedding of what it shows and as the noise that gives its details.
Variations keep the embedding and draw some of the noise anew (--eta); --to leads to another
picture, both ends included; --toward moves the embedding by what words change, in equal steps up to
--amount.  Needs a denoiser that takes embeddings of pictures, such as the shipped one.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.long_texts import LONG_TEXT_HELP, LongText
from guided.core.run import OutputImage, Result, Step
from guided.core.text import absolute
from guided.errors import CannotDo, GuidedError, UsageError
from guided.tasks._ledger import Ledger, distinct, source_of
from guided.tasks._scoring import SCORER_HELP
from guided.tasks.base import (
    Steps,
    TaskContext,
    TaskOptions,
    argument,
    option,
    warn_idle,
)

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.diffusion import Diffusion
    from guided.scorers.clip import ClipScorer


class Options(TaskOptions):
    """The recipe keys of ``vary``."""

    images: list[Path] = argument("picture files", [])
    toward: str = option("words to move the pictures towards", "")
    source: str = option(
        "what the pictures show, in words; empty: what CLIP sees that contradicts --toward", ""
    )
    to: Path | None = option("a picture to lead to", None)
    amount: float = option(
        "how far --toward turns at most, as a part of a right angle", 0.35, gt=0, le=1
    )
    count: int = option("pictures for each picture", 4, ge=1, le=256)
    eta: float | None = option(
        "noise drawn anew: 0 none, 1 as much as there is; empty: 1, or 0 with --to or --toward",
        None, ge=0, le=1,
    )  # fmt: skip
    steps: int = option("denoising steps", 30, ge=1, le=1000)
    cfg: float = option("classifier-free guidance, 1 is none", 2.0, ge=1)
    batch: int = option("pictures that are made together", 8, ge=1, le=256)
    denoiser: str = option("a denoiser's name or folder", "")
    scorer: str = option(SCORER_HELP, "")
    long_text: LongText = option(LONG_TEXT_HELP, "cut")


def needs(options: Options) -> tuple[str, ...]:
    """The roles this verb loads a model for."""
    return ("denoiser", "scorer")


def check(options: Options, ctx: TaskContext) -> None:
    """Refuse options that contradict one another, or leave nothing to vary."""
    if not options.images:
        what = "--toward moves pictures" if options.toward else "Variations are of pictures"
        raise UsageError(f"{what}; none was given.", hint="Name a picture file.")
    if options.toward and options.to is not None:
        raise UsageError("--toward and --to are two ways.", hint="Give one of them.")


def run(options: Options, ctx: TaskContext) -> Steps:
    """Vary every picture, yielding the Steps of finding its noise and of drawing."""
    check(options, ctx)
    if not options.toward:
        warn_idle(options, ("amount", "source"), "they are for --toward, which is not given")
    job = VariationJob.of(options, ctx)
    results: list[dict[str, Any]] = []
    for number in range(len(options.images)):
        try:
            results += yield from job.varied(number)
        except (UsageError, CannotDo):
            raise
        except GuidedError as error:
            job.errors.append({"file": str(options.images[number]), "error": str(error)})
    answer: dict[str, Any] = {"results": results}
    if job.errors:
        answer["errors"] = job.errors
    return Result(answer)


@dataclass(frozen=True)
class InvertedImages:
    """Pictures as the model knows them: their embeddings [B, D] and the noise [B, C, h, w]."""

    image: Tensor
    noise: Tensor


@dataclass
class VariationJob:
    """One run: the model, the CLIP whose embeddings it takes, and what gathers on the way."""

    options: Options
    ctx: TaskContext
    model: Diffusion
    scorer: ClipScorer
    ledger: Ledger
    errors: list[dict[str, str]] = field(default_factory=list)
    _end: InvertedImages | None = None

    @classmethod
    def of(cls, options: Options, ctx: TaskContext) -> VariationJob:
        """The job with its models loaded.

        Raises:
            CannotDo: no denoiser is named, or one that takes no embeddings of pictures.
            CorruptWeights: a CLIP that is not the one whose embeddings the denoiser takes.
        """
        models = ctx.models.of(options, draws="denoiser")
        model, scorer = models.denoiser_of_images, models.scorer
        ledger = Ledger.open(ctx, len(options.images) * options.count)
        return cls(options, ctx, model, scorer, ledger)

    def varied(self, number: int) -> Stream[Step[Any], None, list[dict[str, Any]]]:
        """The answer's entries of the picture in that position."""
        from guided.core.images import to_images

        options, file = self.options, self.options.images[number]
        path = file if str(file) in self.ctx.given else absolute(file)
        eta = options.eta
        if eta is None:
            eta = 0.0 if options.toward or options.to else 1.0
        source = source_of(path, None if options.to is None else absolute(options.to))
        places: list[InvertedImages] = []
        entries: list[dict[str, Any]] = []
        for first in range(0, options.count, options.batch):
            rows = range(first, min(first + options.batch, options.count))
            names = [f"{number}.{row}" for row in rows]
            sources = dict.fromkeys(names, source)
            part = self.ledger.finished(names, sources)
            if part is None:
                if not places:
                    found = yield from self.found(path)
                    places = yield from self.places(found)
                seeds = [self.ctx.seed_at(row if eta else 0) for row in rows]
                drawn = yield from self.drawn([places[row] for row in rows], seeds, eta)
                images = zip(rows, to_images(drawn), seeds, strict=True)
                made = [self._entry(number, path, row, image, seed) for row, image, seed in images]
                part = self.ledger.add(names, made, sources=sources)
            entries += part
        return entries

    def found(self, path: Path) -> Stream[Step[Any], None, InvertedImages]:
        """The embedding and the noise of a picture's file."""
        from guided.core.images import center_square, to_tensor
        from guided.generators.diffusion.source import image_size

        picture = center_square(self.ctx.open_image(path), image_size(self.model.pipe))
        found = yield from self.inverted(to_tensor(picture).to(self.ctx.device.torch))
        return found

    def inverted(self, pixels: Tensor) -> Stream[Step[Any], None, InvertedImages]:
        """The embeddings and the noise of pictures [B, 3, S, S] in [0, 1]."""
        import torch

        from guided.core.seeds import Seeds
        from guided.generators.diffusion.source import ddim_scheduler, encode_images
        from guided.guidance.inversion import invert_noise

        with torch.no_grad():
            image = self.scorer.embed_images(pixels)
        latents, count = encode_images(self.model.pipe, pixels), len(pixels)
        noise = yield from invert_noise(
            self.model.bound([""] * count, image=image), ddim_scheduler(self.model), latents,
            Seeds.of(self.ctx.seed, count), self.options.steps,
        )  # fmt: skip
        return InvertedImages(image, noise)

    def places(self, found: InvertedImages) -> Stream[Step[Any], None, list[InvertedImages]]:
        """Where to go from a picture: --count embeddings with their noise."""
        from guided.guidance.slerp import slerp, slerp_noise

        options, count = self.options, self.options.count
        if options.to is not None:
            if self._end is None:
                self._end = yield from self.found(options.to)
            end = self._end
            shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
            return [
                InvertedImages(slerp(found.image, end.image, share),
                      slerp_noise(found.noise, end.noise, share))
                for share in shares
            ]  # fmt: skip
        if options.toward:
            aim = self.aim(found.image)
            shares = [options.amount * (i + 1) / count for i in range(count)]
            return [turned_to(found, aim, share) for share in shares]
        return [found] * count

    def aim(self, image: Tensor) -> Tensor:
        """The unit direction [1, D] of what --toward changes in a picture."""
        from guided.core.prompts import text_direction
        from guided.editing.texts import source_text

        toward, world = self.options.toward, self.ctx.world("denoiser", self.options.denoiser)
        source = self.options.source or source_text(toward, image[0], self.scorer, world)
        aim = text_direction(self.scorer, [toward], [source or world.neutral])
        return aim.to(image)

    def drawn(
        self, places: Sequence[InvertedImages], seeds: Sequence[int], eta: float
    ) -> Stream[Step[Any], None, Tensor]:
        """Pictures [B, 3, S, S] of some places, with a seed for each picture."""
        import torch

        from guided.core.seeds import Seeds
        from guided.generators.diffusion.source import ddim_scheduler
        from guided.guidance.edit_sampler import PartialSampler

        image = torch.cat([place.image for place in places])
        noise = torch.cat([place.noise for place in places])
        bound = self.model.bound([""] * len(image), cfg=self.options.cfg, image=image)
        sampler = PartialSampler(
            bound, ddim_scheduler(self.model), noise, Seeds(tuple(seeds)), self.options.steps,
            self.options.cfg, eta=eta, sample=noise,
        )  # fmt: skip
        latents = yield from sampler.steps()
        return self.model.decode(latents)

    def _entry(self, number: int, path: Path, row: int, image: Any, seed: int) -> dict[str, Any]:
        from guided.core.files import safe_name

        options = self.options
        note: dict[str, Any] = {"seed": seed}
        note |= {"toward": options.toward} if options.toward else {}
        files = [path] if options.to is None else [path, absolute(options.to)]
        parents = tuple(str(each) for each in files if each.is_absolute() and each.is_file())
        stem = distinct([safe_name(file.stem) for file in options.images])[number]
        name = f"{stem}-{row:03d}-s{seed}.png"
        return {"file": str(path), "image": OutputImage(name, image, parents, note), "seed": seed}


def turned_to(found: InvertedImages, aim: Tensor, amount: float) -> InvertedImages:
    """Pictures turned to directions [B, D] by a part of a right angle; the noise stays."""
    from guided.guidance.slerp import slerp_towards

    return InvertedImages(slerp_towards(found.image, aim, amount), found.noise)
