"""``guided generate --method diffusion``: denoise, with CLIP steering where asked."""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.files import IMAGE_SUFFIXES, safe_name
from guided.core.foreign_syntax import weights_unread
from guided.core.loss_tables import LossTable, check_losses, loss_roles, objective_of
from guided.core.run import OutputImage, Result, Step, renumber
from guided.errors import UsageError
from guided.tasks._generate_options import DiffusionKeys, Options
from guided.tasks._generation import rows_of, sheet_of
from guided.tasks._ledger import Ledger
from guided.tasks.base import Steps, TaskContext

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.diffusion import Diffusion
    from guided.guidance.denoise import Denoising
    from guided.guidance.guided_denoiser import Guidance


#: The keys that are this method's.
OWN = frozenset(DiffusionKeys.model_fields)
_STEERING = (
    "scorer", "identity", "perceptual", "guide_weight", "guide_scale", "unit", "jacobian",
    "decode", "every", "window", "recurrence", "cutouts",
)  # fmt: skip


def needs(options: Options) -> tuple[str, ...]:
    """The roles this method loads a model for."""
    if not _guided(options):
        return ("denoiser",)
    student = ("latent_scorer",) if options.decode == "latent" else ()
    return ("denoiser", *loss_roles(losses_of(options)), *student)


def idle(options: Options) -> tuple[tuple[str, ...], str]:
    """Keys that do nothing as the others stand, and what is missing."""
    if losses_of(options):
        return (), ""
    return _STEERING, "nothing steers: give --guide, --guide-image or a [[loss]]"


def losses_of(options: Options) -> list[LossTable]:
    """The [[loss]] tables that steer: those of ``guide`` and ``guide_image``, then those given."""
    texts = [None if text == "prompt" else text for text in options.guide]
    parts: list[dict[str, Any]] = [{"kind": "clip", "text": text} for text in texts]
    if options.guide_image:
        parts.append({"kind": "image_prompt", "weights": options.guide_weight})
    return [*(LossTable.model_validate(part) for part in parts), *options.loss]


def run(options: Options, ctx: TaskContext) -> Steps:
    """Make the pictures, in batches; Steps carry drafts whose ``image`` is a quick preview."""
    if options.steps < 1:
        raise UsageError("steps = 0 leaves nothing but noise.", hint="Give --steps 1 or more.")
    check(options)
    job = DiffusionJob(options, ctx, ctx.models.of(options).denoiser)
    rows = rows_of(options, ctx)
    yield from job.made(rows)
    return job.result()


def check(options: Options) -> None:
    """Raise for what no model is needed to refuse."""
    if options.steps < 1:
        raise UsageError("steps = 0 leaves nothing but noise.", hint="Give --steps 1 or more.")
    for text in options.guide:
        if Path(text).suffix.lower() in IMAGE_SUFFIXES:
            raise UsageError(
                f"--guide takes words, and {text!r} is the name of a picture.",
                hint=f"Give it as --guide-image {text}.",
            )
    check_losses(losses_of(options))


def _guided(options: Options) -> bool:
    return bool(options.guide or options.guide_image or options.loss) and options.guide_scale > 0


@dataclass
class DiffusionJob:
    """One run: the model, what steers it, and what has been made so far."""

    options: Options
    ctx: TaskContext
    model: Diffusion
    results: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    guided: int = 0
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.ctx, 0)
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
        from guided.guidance.denoise_estimates import Cutouts
        from guided.guidance.guided_denoiser import Guidance

        options, ctx = self.options, self.ctx
        objective, models = objective_of(losses_of(options)), ctx.models.of(options)
        scorer = models.scorer if "scorer" in objective.needs else None
        place = ctx.device.torch
        pictures = [to_tensor(ctx.open_image(file)).to(place) for file in options.guide_image]
        chosen = options.decode or options.cutouts or options.denoiser or options.scorer
        student = None
        if scorer is not None:
            asked = options.decode == "latent"
            student = models.latent_scorer(self.model, scorer, asked=asked, chosen=bool(chosen))
        cutouts = None
        if options.cutouts and scorer is not None:
            cutouts = Cutouts(options.cutouts, size=scorer.preprocess.size[0])
        return Guidance(
            objective=objective,
            scorer=scorer,
            scale=options.guide_scale,
            unit=options.unit,
            jacobian=options.jacobian,
            decode=options.decode or ("vae" if student is None else "latent"),
            every=options.every,
            window=options.window,
            recurrence=options.recurrence,
            cutouts=cutouts,
            latent_scorer=student,
            models=models.for_losses(objective),
            extras={"image_prompts": pictures} if pictures else {},
        )

    def made(self, rows: Sequence[tuple[str, int]]) -> Stream[Step[Any], None, None]:
        """All rows in batches; those that an earlier run finished are taken from there."""
        self.ledger = Ledger.open(self.ctx, len(rows))
        for first in range(0, len(rows), self.options.batch):
            part = rows[first : first + self.options.batch]
            names = [str(first + i) for i in range(len(part))]
            entries = self.ledger.finished(names)
            if entries is None:
                yield from self.make(part, first, len(rows))
                continue
            self.results += entries
            figures = self.ledger.further(names[0])
            self.skipped += int(figures.get("skipped", 0))
            self.guided += int(figures.get("guided", 0))

    def make(
        self, rows: Sequence[tuple[str, int]], done: int, total: int
    ) -> Stream[Step[Any], None, None]:
        """A batch of pictures; Steps are counted over all batches."""
        from guided.core.images import to_images

        loop = self._loop(rows)
        batches, batch = -(-total // self.options.batch), done // self.options.batch
        latents = yield from renumber(loop.steps(), batch, batches)
        self.skipped, self.guided = self.skipped + loop.skipped, self.guided + loop.guided
        pictures = to_images(self._decoded(latents, rows))
        entries: list[dict[str, Any]] = []
        for image, (prompt, seed) in zip(pictures, rows, strict=True):
            number = done + len(entries)
            name = f"{number:04d}-{safe_name(prompt)}-s{seed}.png"
            note = {"prompt": prompt, "seed": seed}
            parents = tuple(str(file) for file in self.options.guide_image)
            picture = OutputImage(name, image, parents, note)
            entries.append({"prompt": prompt, "image": picture, "seed": seed})
            entries[-1] |= self._beside(len(entries) - 1)
        figures = {"skipped": loop.skipped, "guided": loop.guided}
        names = [str(done + i) for i in range(len(rows))]
        further = [figures, *({} for _ in rows[1:])]
        self.results += self.ledger.add(names, entries, further=further)

    def _beside(self, row: int) -> dict[str, Any]:
        """What the answer says besides of a row of the present batch."""
        return {}

    def _loop(self, rows: Sequence[tuple[str, int]]) -> Denoising:
        from guided.core.seeds import Seeds
        from guided.guidance.denoise import Denoising

        options = self.options
        prompts, seeds = [prompt for prompt, _ in rows], Seeds(tuple(seed for _, seed in rows))
        apart = [options.negative] * len(rows)
        guidance = replace(self.guidance, prompts=tuple(prompts)) if self.guidance else None
        return Denoising(
            self.model.bound(prompts, apart, cfg=self.cfg, size=self.size),
            self.model.scheduler(options.scheduler, self.size),
            self.model.start(seeds, size=self.size)["noise"],
            seeds,
            options.steps,
            self.cfg,
            guidance,
            options.eta,
        )

    def _decoded(self, latents: Tensor, rows: Sequence[tuple[str, int]]) -> Tensor:
        names = [f"The picture of {prompt!r} with seed {seed}" for prompt, seed in rows]
        at = f" at cfg {self.cfg:g} and guide-scale {self.options.guide_scale:g}"
        return self.model.decode(latents, names, at)

    def result(self) -> Result:
        """The answer; it says where guidance was not finite, and where weights were not read."""
        answer: dict[str, Any] = {"results": self.results, **sheet_of(self.results, self.options)}
        texts = (*self.options.prompts, self.options.negative)
        warnings = weights_unread(texts, "CLIP reads weights, in --guide; --method gan does, too")
        if self.skipped:
            warnings.append(
                f"Guidance was not finite and skipped for {self.skipped} of {self.guided} "
                "guided steps."
            )
        if warnings:
            answer["warnings"] = warnings
        return Result(answer, scores={"guided": float(self.guided), "skipped": float(self.skipped)})
