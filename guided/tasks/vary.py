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

from guided.core.run import Picture, Result, Step
from guided.errors import CannotDo, GuidedError, UsageError
from guided.tasks._picture_embeddings import check_embeddings
from guided.tasks._scoring import SCORER_HELP, pick_scorer
from guided.tasks.base import Steps, TaskOptions, Workbench, argument, option

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
    denoiser: str = option("a denoiser's name, or local-dir:FOLDER", "")
    scorer: str = option(SCORER_HELP, "")


def needs(options: Options) -> tuple[str, ...]:
    """The roles this verb loads a model for."""
    return ("denoiser", "scorer")


def run(options: Options, bench: Workbench) -> Steps:
    """Vary every picture, yielding the Steps of finding its noise and of drawing."""
    if not options.images:
        what = "--toward moves pictures" if options.toward else "Variations are of pictures"
        raise UsageError(f"{what}; none was given.", hint="Name a picture file.")
    if options.toward and options.to is not None:
        raise UsageError("--toward and --to are two ways.", hint="Give one of them.")
    job = Job.of(options, bench)
    results: list[dict[str, Any]] = []
    for file in options.images:
        try:
            results += yield from job.varied(file)
        except (UsageError, CannotDo):
            raise
        except GuidedError as error:
            job.errors.append({"file": str(file), "error": str(error)})
    answer: dict[str, Any] = {"results": results}
    if job.errors:
        answer["errors"] = job.errors
    return Result(answer)


@dataclass(frozen=True)
class Found:
    """Pictures as the model knows them: their embeddings [B, D] and the noise [B, C, h, w]."""

    image: Tensor
    noise: Tensor


@dataclass
class Job:
    """One run: the model, the CLIP whose embeddings it takes, and what gathers on the way."""

    options: Options
    bench: Workbench
    model: Diffusion
    scorer: ClipScorer
    errors: list[dict[str, str]] = field(default_factory=list)
    _end: Found | None = None

    @classmethod
    def of(cls, options: Options, bench: Workbench) -> Job:
        """The job with its models loaded.

        Raises:
            CannotDo: no denoiser is named, or one that takes no embeddings of pictures.
            CorruptWeights: a CLIP that is not the one whose embeddings the denoiser takes.
        """
        from guided.tasks import _generate_diffusion
        from guided.tasks._generate_options import Options as Asked

        model = _generate_diffusion.open_model(
            Asked(prompts=["-"], denoiser=options.denoiser), bench
        )
        scorer = pick_scorer(bench, options.scorer)
        check_embeddings(model, scorer, options.denoiser, bench)
        return cls(options, bench, model, scorer)

    def varied(self, file: Path) -> Stream[Step[Any], None, list[dict[str, Any]]]:
        """The answer's entries of one picture."""
        from guided.core.images import to_images

        held = str(file) in self.bench.given
        path = file if held else file.expanduser().absolute()
        found = yield from self.found(path)
        places = yield from self.places(found)
        eta = self.options.eta
        if eta is None:
            eta = 0.0 if self.options.toward or self.options.to else 1.0
        entries: list[dict[str, Any]] = []
        for first in range(0, len(places), self.options.batch):
            part = places[first : first + self.options.batch]
            seeds = [self.bench.seed + (first + i if eta else 0) for i in range(len(part))]
            drawn = yield from self.drawn(part, seeds, eta)
            for image, seed in zip(to_images(drawn), seeds, strict=True):
                entries.append(self._entry(path, len(entries), image, seed))
        return entries

    def found(self, path: Path) -> Stream[Step[Any], None, Found]:
        """The embedding and the noise of a picture's file."""
        from guided.core.images import center_square, to_tensor
        from guided.generators.diffusion_source import picture_size

        picture = center_square(self.bench.open_image(path), picture_size(self.model.pipe))
        found = yield from self.inverted(to_tensor(picture).to(self.bench.device.torch))
        return found

    def inverted(self, pixels: Tensor) -> Stream[Step[Any], None, Found]:
        """The embeddings and the noise of pictures [B, 3, S, S] in [0, 1]."""
        import torch

        from guided.core.seeds import Seeds
        from guided.generators.diffusion_source import latents_of, walking
        from guided.guidance.inversion import invert

        with torch.no_grad():
            image = self.scorer.embed_images(pixels)
        latents, count = latents_of(self.model.pipe, pixels), len(pixels)
        way = yield from invert(
            self.model.bound([""] * count, image=image), walking(self.model), latents,
            Seeds.of(self.bench.seed, count), self.options.steps,
        )  # fmt: skip
        return Found(image, way.states[0])

    def places(self, found: Found) -> Stream[Step[Any], None, list[Found]]:
        """Where to go from a picture: --count embeddings with their noise."""
        from guided.guidance.embedding_turns import slerp, slerp_noise

        options, count = self.options, self.options.count
        if options.to is not None:
            if self._end is None:
                self._end = yield from self.found(options.to)
            end = self._end
            shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
            return [
                Found(slerp(found.image, end.image, share),
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
        from guided.tasks._edit_denoising import source_words
        from guided.tasks._edit_editors import NEUTRAL

        said = self.options.source or source_words(self.options.toward, image[0], self.scorer)
        aim = text_direction(self.scorer, [self.options.toward], [said or NEUTRAL])
        return aim.to(image)

    def drawn(
        self, places: Sequence[Found], seeds: Sequence[int], eta: float
    ) -> Stream[Step[Any], None, Tensor]:
        """Pictures [B, 3, S, S] of some places, with a seed for each picture."""
        import torch

        from guided.core.seeds import Seeds
        from guided.generators.diffusion_source import walking
        from guided.guidance.walk import Walk

        image = torch.cat([place.image for place in places])
        noise = torch.cat([place.noise for place in places])
        bound = self.model.bound([""] * len(image), cfg=self.options.cfg, image=image)
        walk = Walk(
            bound, walking(self.model), noise, Seeds(tuple(seeds)), self.options.steps,
            self.options.cfg, eta=eta, sample=noise,
        )  # fmt: skip
        latents = yield from walk.steps()
        with torch.no_grad():
            return self.model.render({"x0": latents}).float()

    def _entry(self, path: Path, number: int, image: Any, seed: int) -> dict[str, Any]:
        from guided.core.files import safe_name

        options = self.options
        note: dict[str, Any] = {"seed": seed}
        note |= {"toward": options.toward} if options.toward else {}
        files = [path] if options.to is None else [path, options.to.expanduser().absolute()]
        parents = tuple(str(each) for each in files if each.is_absolute() and each.is_file())
        name = f"{safe_name(path.stem)}-{number:03d}-s{seed}.png"
        return {"file": str(path), "image": Picture(name, image, parents, note), "seed": seed}


def turned_to(found: Found, aim: Tensor, amount: float) -> Found:
    """Pictures turned to directions [B, D] by a part of a right angle; the noise stays."""
    from guided.guidance.embedding_turns import turned

    return Found(turned(found.image, aim, amount), found.noise)
