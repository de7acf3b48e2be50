"""``guided generate --method diffusion``: denoise, with CLIP steering where asked."""

from __future__ import annotations

import math
from collections.abc import Generator as Stream
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.files import PICTURES, safe_name
from guided.core.run import Picture, Result, Step
from guided.errors import CannotDo, UsageError
from guided.tasks._generate_options import Options
from guided.tasks._latent_sight import latent_scorer_of
from guided.tasks._losses import objective_of
from guided.tasks._scoring import pick_scorer
from guided.tasks.base import Steps, Workbench

if TYPE_CHECKING:
    from torch import Tensor

    from guided.core.objective import Objective
    from guided.generators.diffusion import Diffusion
    from guided.guidance.denoise import Denoising, Guidance

_LOCAL = "local-dir:"


def needs(options: Options) -> tuple[str, ...]:
    """The roles this method loads a model for."""
    if not _guided(options):
        return ("denoiser",)
    student = ("latent_scorer",) if options.decode == "latent" else ()
    return ("denoiser", "scorer", *student)


def run(options: Options, bench: Workbench) -> Steps:
    """Make the pictures, in batches; Steps carry drafts whose ``image`` is a quick preview."""
    if options.steps < 1:
        raise UsageError("steps = 0 leaves nothing but noise.", hint="Give --steps 1 or more.")
    _check(options)
    job = Job(options, bench, open_model(options, bench))
    rows = [(prompt, bench.seed + i) for prompt in options.prompts for i in range(options.count)]
    for first in range(0, len(rows), options.batch):
        yield from job.make(rows[first : first + options.batch], first, len(rows))
    return job.result()


def _check(options: Options) -> None:
    """Raise for what no model is needed to refuse."""
    for name, value in (("cfg", options.cfg), ("guide-scale", options.guide_scale)):
        if value is not None and not math.isfinite(value):
            raise UsageError(
                f"--{name} is {value}; it must be a finite number.",
                hint=f"Leave --{name} out to take the default.",
            )
    for text in options.guide:
        if Path(text).suffix.lower() in PICTURES:
            raise UsageError(
                f"--guide takes words, and {text!r} is the name of a picture.",
                hint=f"Give it as --guide-image {text}.",
            )


def open_model(options: Options, bench: Workbench) -> Diffusion:
    """The model that --denoiser or the kit names.

    Raises:
        CannotDo: neither names one.
        MissingWeights: named, but not on this computer.
    """
    wanted = options.denoiser or bench.kit.get("denoiser", "")
    if not wanted:
        raise CannotDo("No denoiser is named.", hint="Give --denoiser local-dir:FOLDER.")
    if wanted.startswith(_LOCAL):
        folder = Path(wanted.removeprefix(_LOCAL))
        bench.notes[wanted] = _digest(folder)
        return _loaded(folder, bench, "")
    from guided.zoo import find

    found = find(wanted, "denoiser", online=bench.online)
    bench.notes[wanted] = found.sha256
    return _loaded(found.folder, bench, wanted)


def _loaded(folder: Path, bench: Workbench, name: str) -> Diffusion:
    """The model in a folder; one that shares its CLIP with others is read with that CLIP."""
    from guided.generators.diffusion import load_diffusion
    from guided.generators.diffusion_own import load_own, parts_of

    parts = parts_of(folder)
    if parts is None:
        return load_diffusion(folder, bench.device, name=name)
    return load_own(folder, pick_scorer(bench, parts.scorer), bench.device, name=name)


def _digest(folder: Path) -> str:
    from guided.zoo.manifest import digest

    index = folder / "model_index.json"
    return digest(index) if index.is_file() else ""


def _guided(options: Options) -> bool:
    return bool(options.guide or options.guide_image or options.loss) and options.guide_scale > 0


@dataclass
class Job:
    """One run: the model, what steers it, and what has been made so far."""

    options: Options
    bench: Workbench
    model: Diffusion
    results: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    guided: int = 0

    def __post_init__(self) -> None:
        self.cfg = self.model.cfg if self.options.cfg is None else self.options.cfg
        self.size = self._size()
        self.model.pipe.latent_shape(self.size)
        self.guidance = self._guidance() if _guided(self.options) else None

    def _size(self) -> tuple[int, int] | None:
        if not self.options.size:
            return None
        height, width = self.options.size[0], self.options.size[-1]
        return height, width

    def _guidance(self) -> Guidance:
        from guided.core.images import to_tensor
        from guided.guidance.denoise import Guidance
        from guided.guidance.denoise_views import Cutouts

        options, bench = self.options, self.bench
        scorer = pick_scorer(bench, options.scorer)
        place = bench.device.torch
        pictures = [to_tensor(bench.open_image(file)).to(place) for file in options.guide_image]
        side = scorer.preprocess.size[0]
        chosen = options.decode or options.cutouts or options.denoiser or options.scorer
        student = latent_scorer_of(
            self.model, scorer.fingerprint, bench,
            asked=options.decode == "latent", chosen=bool(chosen),
        )  # fmt: skip
        return Guidance(
            objective=self._objective(),
            scorer=scorer,
            scale=options.guide_scale,
            unit=options.unit,
            jacobian=options.jacobian,
            decode=options.decode or ("vae" if student is None else "latent"),
            every=options.every,
            window=options.window,
            recurrence=options.recurrence,
            cutouts=Cutouts(options.cutouts, size=side) if options.cutouts else None,
            latent_scorer=student,
            extras={"image_prompts": pictures} if pictures else {},
        )

    def _objective(self) -> Objective:
        from guided.core.objective import Objective
        from guided.losses.clip import Clip
        from guided.losses.image_prompt import ImagePrompt

        options = self.options
        parts: list[Any] = [Clip(None if t == "prompt" else t) for t in options.guide]
        if options.guide_image:
            parts.append(ImagePrompt(tuple(options.guide_weight)))
        return Objective.of(*parts, objective_of(options.loss))

    def make(
        self, rows: Sequence[tuple[str, int]], done: int, total: int
    ) -> Stream[Step[Any], None, None]:
        """A batch of pictures; Steps are counted over all batches."""
        from guided.core.images import to_images

        loop = self._loop(rows)
        batches, batch = -(-total // self.options.batch), done // self.options.batch
        latents = yield from _counted(loop, batch, batches)
        self.skipped, self.guided = self.skipped + loop.skipped, self.guided + loop.guided
        pictures = to_images(self._decoded(latents, rows))
        for image, (prompt, seed) in zip(pictures, rows, strict=True):
            number = len(self.results)
            name = f"{number:04d}-{safe_name(prompt)}-s{seed}.png"
            note = {"prompt": prompt, "seed": seed}
            parents = tuple(str(file) for file in self.options.guide_image)
            self.results.append(
                {"prompt": prompt, "image": Picture(name, image, parents, note), "seed": seed}
            )

    def _loop(self, rows: Sequence[tuple[str, int]]) -> Denoising:
        from guided.core.seeds import Seeds
        from guided.guidance.denoise import Denoising

        options = self.options
        prompts, seeds = [prompt for prompt, _ in rows], Seeds(tuple(seed for _, seed in rows))
        apart = [options.negative] * len(rows)
        guidance = replace(self.guidance, prompts=tuple(prompts)) if self.guidance else None
        return Denoising(
            self.model.bound(prompts, apart, cfg=self.cfg, size=self.size),
            self.model.scheduler(options.scheduler),
            self.model.start(seeds, size=self.size)["noise"],
            seeds,
            options.steps,
            self.cfg,
            guidance,
            options.eta,
        )

    def _decoded(self, latents: Tensor, rows: Sequence[tuple[str, int]]) -> Tensor:
        import torch

        with torch.no_grad():
            images = self.model.render({"x0": latents}).float()
        fine = torch.isfinite(images).flatten(1).all(1)
        if not bool(fine.all()):
            prompt, seed = rows[int((~fine).int().argmax())]
            options = self.options
            raise CannotDo(
                f"The picture of {prompt!r} with seed {seed} is not finite at cfg {self.cfg:g} "
                f"and guide-scale {options.guide_scale:g}.",
                hint="Lower --cfg and --guide-scale; if that does not help, the weights are "
                "damaged: get them again.",
            )
        return images

    def result(self) -> Result:
        """The answer; it says where guidance was not finite."""
        answer: dict[str, Any] = {"results": self.results}
        if self.skipped:
            answer["warnings"] = [
                f"Guidance was not finite and skipped for {self.skipped} of {self.guided} "
                "guided steps."
            ]
        return Result(answer, scores={"guided": float(self.guided), "skipped": float(self.skipped)})


def _counted(loop: Denoising, batch: int, batches: int) -> Stream[Step[Any], None, Tensor]:
    moves: Iterator[Step[Any]] = loop.steps()
    while True:
        try:
            step = next(moves)
        except StopIteration as end:
            latents: Tensor = end.value
            return latents
        total = step.total or 0
        at = batch * total + step.index
        yield Step(at, total * batches, step.label, step.losses, step.draft)
