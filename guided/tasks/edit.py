"""Change pictures by words: find the latent whose picture fits the prompt.

A picture is inverted to the generator's latent (or given as one), moved until CLIP agrees with
the prompt, and drawn again.  Faces in photographs are cut out by four landmarks, edited, and put
back.  Without pictures, random portraits are edited.  The change is saved beside the picture:
another strength, or a further edit, starts from it.

The methods sdedit, inpaint, ddim, ddpm, p2p, directional and turn have no such latent: a diffusion
model draws the picture again.
"""

from __future__ import annotations

import logging
from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guided.core.run import Result, Step
from guided.errors import CannotDo, GuidedError, MissingWeights, UsageError
from guided.tasks import _edit_diffusion
from guided.tasks._edit_diffusion_options import METHODS
from guided.tasks._edit_inputs import Opening, Subject, looks_drawn, open_mask
from guided.tasks._edit_options import STRENGTHS, Options, settled, spread
from guided.tasks._edit_outputs import Edited, Outputs, Show, changes, means
from guided.tasks.base import Steps, Workbench

if TYPE_CHECKING:
    from torch import Tensor

    from guided.core.editing import Delta, Editor
    from guided.core.protocols import Latent
    from guided.generators.stylegan2 import Space
    from guided.tasks._edit_models import EditModels
    from guided.tasks._edit_regions import Region

logger = logging.getLogger(__name__)


def needs(options: Options) -> tuple[str, ...]:
    """The roles this verb loads a model for."""
    if options.method in METHODS:
        return _edit_diffusion.needs(options)
    roles = ["generator"]
    if options.prompt or options.strength == "auto":
        roles.append("scorer")
    known = (".pt", ".pth", ".safetensors")
    if options.invert != "optimise" and any(p.suffix.lower() not in known for p in options.images):
        roles.append("inverter")
    if _wants(options, "identity"):
        roles.append("identity")
    # A kit without a delta mapper is passed over.
    if options.prompt and settled(options, {"delta"}).method in ("delta", "refine"):
        roles.append("delta")
    if options.method == "direction" and not options.statistics:
        roles.append("directions")
    return tuple(roles)


def run(options: Options, bench: Workbench) -> Steps:
    """Edit every picture by every prompt, in batches, yielding the Steps of the search."""
    options = settled(options, bench.kit)
    options = options.model_copy(update={"images": spread(options.images)})
    if options.method in METHODS:
        edited: Result = yield from _edit_diffusion.run(options, bench)
        return edited
    _check(options)
    job = Job.of(options, bench)
    subjects = yield from job.opened()
    if not subjects:
        return Result(job.answer([]))
    start = yield from job.started(subjects)
    results: list[dict[str, Any]] = []
    pairs = job.pairs(subjects)
    for first in range(0, len(pairs), options.batch):
        chunk = pairs[first : first + options.batch]
        rows = [subjects[i] for i, _ in chunk]
        delta = yield from job.change(start, chunk, rows, (first, len(pairs)))
        results.extend(job.finished(rows, [prompt for _, prompt in chunk], delta))
    return Result(job.answer(results), files=job.outputs.files, scores=means(results))


def _check(options: Options) -> None:
    own = options.generator or options.scorer
    for role, method, shipped in (
        ("mapper", "mapper", False),
        ("statistics", "direction", not own),
        ("delta", "delta", not own),
        ("delta", "refine", not own),
    ):
        if options.method == method and not shipped and not getattr(options, role):
            raise UsageError(
                f"--method {method} needs --{role} FILE.",
                hint="The kit's own belongs to the kit's generator and CLIP." if own else "",
            )
    if not options.prompt and options.method != "mapper":
        latents = (".png", ".safetensors")
        if not options.images or any(p.suffix.lower() not in latents for p in options.images):
            words = [p.name for p in options.images if not p.suffix and not p.exists()]
            raise UsageError(
                "What should change?",
                hint=f"Give --prompt {words[0] if words else 'purple hair'!r}; without one, saved "
                "edits are drawn again.",
            )


def _wants(options: Options, kind: str) -> bool:
    """Whether the objective has a loss of that kind."""
    if options.method not in ("auto", "optimise"):
        return False
    if options.loss:
        return any(table.kind == kind for table in options.loss)
    usual = {"clip": 1.0, "identity": options.keep_identity, "latent_l2": options.near,
             "masked_l1": options.keep_outside if options.mask else 0.0}  # fmt: skip
    return usual.get(kind, 0.0) > 0


@dataclass
class Job:
    """One run of the verb: options, models, and what gathers on the way."""

    options: Options
    bench: Workbench
    models: EditModels
    outputs: Outputs
    errors: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, options: Options, bench: Workbench) -> Job:
        """The job, with no model loaded yet."""
        from guided.tasks._edit_models import EditModels

        roles = ("generator", "scorer", "identity", "inverter", "perceptual", "mapper", "delta")
        named = {role: getattr(options, role) for role in roles}
        named["directions"] = options.statistics
        overshoot: Literal["clip", "keep"] = "keep" if options.preprocess == "styleclip" else "clip"
        models = EditModels(bench, named, overshoot)
        show = Show(options.strip, options.sweep, options.gif, options.paste)
        return cls(options, bench, models, Outputs(bench.folder, show, {}, set()))

    @property
    def drawn(self) -> bool:
        """Whether the run's world is the drawn portraits."""
        from guided.zoo.kits import load_kit

        return not self.options.generator and dict(self.bench.kit) == load_kit("portraits")

    def warn(self, text: str) -> None:
        """Say something in the answer and in the log, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning(text)

    def opened(self) -> Stream[Step[Any], None, list[Subject]]:
        """The subjects of all files that can be opened; failures go into ``errors``."""
        options = self.options
        if not options.images:
            seeds = range(self.bench.seed, self.bench.seed + options.count)
            return [Subject("", f"portrait-{seed}") for seed in seeds]
        if self.drawn:
            self._warn_of_photos()
        size = self.models.generator.size
        opening = Opening(
            self.bench, size, options.faces, options.landmarks, options.face, self.drawn
        )
        found: list[Subject] = []
        for position, file in enumerate(options.images):
            try:
                found += opening.subject(file, position)
            except UsageError:
                raise
            except GuidedError as error:
                self.errors.append({"file": str(file), "error": str(error)})
            yield Step(position + 1, len(options.images), "open")
        return found

    def _warn_of_photos(self) -> None:
        for file in self.options.images:
            if file.suffix.lower() in (".pt", ".pth", ".safetensors"):
                continue
            try:
                drawn = looks_drawn(self.bench.open_image(file))
            except GuidedError:
                continue  # reported when the file is opened in earnest
            if not drawn:
                prompt = self.options.prompt[0] if self.options.prompt else "TEXT"
                self.warn(
                    f"{file} does not look like a drawn portrait, the only thing the portraits "
                    f"kit knows. For a photograph run: guided edit {file} --prompt "
                    f'"{prompt}" --kit photo --landmarks x,y,x,y,x,y,x,y'
                )

    def started(self, subjects: Sequence[Subject]) -> Stream[Step[Any], None, Latent]:
        """The latents of all subjects, in one space."""
        from guided.tasks._edit_rows import choose_space, invert, stacked

        fresh = [i for i, subject in enumerate(subjects) if subject.saved is None]
        place = self.bench.device.torch
        latents: dict[int, Latent] = {}
        for i, subject in enumerate(subjects):
            if (latent := subject.latent) is not None:
                latents[i] = {name: leaf.to(place) for name, leaf in latent.items()}
        if fresh:
            new = yield from self._fresh([subjects[i] for i in fresh], invert)
            for row, i in enumerate(fresh):
                latents[i] = {name: leaf[row : row + 1] for name, leaf in new.items()}
        ordered = [latents[i] for i in range(len(subjects))]
        space = choose_space(self.options.space, ordered)
        generator = self.models.generator
        return stacked([generator.in_space(latent, space) for latent in ordered])

    def _fresh(self, subjects: Sequence[Subject], invert: Any) -> Stream[Step[Any], None, Latent]:
        """Latents of subjects that have none: random ones, or those of their pictures."""
        from guided.core.seeds import Seeds

        options = self.options
        if subjects[0].picture is None:
            seeds = Seeds.of(self.bench.seed, len(subjects))
            drawn: Latent = self.models.generator.start(seeds, truncation=options.truncation)
            return drawn
        found = yield from invert(self.models, subjects, options.invert, options.invert_steps)
        inverted: Latent = found
        return inverted

    def pairs(self, subjects: Sequence[Subject]) -> list[tuple[int, str]]:
        """Every subject with every prompt; saved edits keep their own where none is given."""
        if self.options.prompt:
            self._check_prompts()
            return [(i, prompt) for i in range(len(subjects)) for prompt in self.options.prompt]
        own = Path(self.options.mapper).stem.replace("_", " ")
        return [(i, own or subject.prompt) for i, subject in enumerate(subjects)]

    def _check_prompts(self) -> None:
        from guided.core.prompts import parse

        texts = [text for prompt in self.options.prompt for text, _ in parse(prompt)]
        for cut in self.models.scorer.cuts(texts):
            self.warn(str(cut))

    def change(
        self,
        start: Latent,
        chunk: Sequence[tuple[int, str]],
        rows: Sequence[Subject],
        place: tuple[int, int],
    ) -> Stream[Step[Any], None, Delta]:
        """The changes of a batch of rows, with Steps counted over all batches."""
        from guided.tasks._edit_editors import editor_of, saved_change
        from guided.tasks._edit_rows import picked

        prompts = [prompt for _, prompt in chunk]
        if not self.options.prompt and self.options.method != "mapper":
            return saved_change(rows, self.bench.device.torch)
        codes = picked(start, [i for i, _ in chunk])
        space: Space = "w" if "w" in codes else "s"
        editor: Editor = editor_of(self.options, self.models, space, self.masks(rows))
        moves = editor.propose(codes, prompts)
        done, total = place
        while True:
            try:
                step = next(moves)
            except StopIteration as end:
                delta: Delta = end.value
                return delta
            batches = -(-total // self.options.batch)
            offset = done // self.options.batch * (step.total or 0)
            yield Step(
                offset + step.index,
                (step.total or 0) * batches,
                step.label,
                step.losses,
                step.draft,
            )

    def masks(self, rows: Sequence[Subject]) -> Tensor | None:
        """The mask [B, 1, size, size] of each row, 1 where it may change, if there is one."""
        if self.options.mask is None:
            return None
        from guided.core.images import to_tensor

        size = self.models.generator.size
        drawn = [open_mask(self.options.mask, row, size).convert("RGB") for row in rows]
        return to_tensor(drawn)[:, :1].to(self.bench.device.torch)

    def finished(
        self, rows: Sequence[Subject], prompts: Sequence[str], delta: Delta
    ) -> list[dict[str, Any]]:
        """The answer's entries of a batch: strengths chosen, pictures drawn, figures taken."""
        from guided.core.images import to_images
        from guided.tasks._edit_editors import Judgement
        from guided.tasks._edit_regions import View, elsewhere

        view = View(self.models.generator, delta, self.region(rows, delta))
        asked = self._asked(prompts, delta)
        judge = Judgement(self.models, self.options.neutral, asked)
        if self.options.strength == "auto":
            if not all(asked):
                raise UsageError(
                    "The strength auto is the least at which CLIP sees the prompt; there is none.",
                    hint="Give --prompt, or a number for --strength.",
                )
            strengths = judge.smallest(delta, STRENGTHS, view.keep)
        else:
            strengths = [float(self.options.strength)] * delta.rows
        before, after = view.at(0.0), view.at(strengths)
        figures = judge.figures(before, after)
        told = _wants(self.options, "identity") or self.models.here("identity")
        with_identity = self.models.by_role({"identity": told})
        if with_identity:
            same = with_identity["identity"].embed_images
            for row, value in zip(figures, (same(before) * same(after)).sum(1), strict=True):
                row["identity"] = float(value)
        ends = before.clamp(0, 1), after.clamp(0, 1)
        mask = self.masks(rows)
        moved = changes(*ends, None)
        rest = elsewhere(*ends) if mask is None else changes(*ends, mask)
        entries: list[dict[str, Any]] = []
        pictures = zip(to_images(before), to_images(after), strict=True)
        for i, (old, new) in enumerate(pictures):
            figures[i] |= {"change": float(moved[i]), "change_outside": float(rest[i])}
            edit = Edited(rows[i], prompts[i], view.row(i), strengths[i], old, new, figures[i])
            entries.append(self.outputs.add(edit))
        return entries

    def region(self, rows: Sequence[Subject], delta: Delta) -> Region | None:
        """Where the rows may change, if there is a mask; ``optimise`` spares the rest by a loss."""
        from guided.core.images import to_tensor
        from guided.tasks._edit_regions import Region

        mask = self.masks(rows)
        if mask is None:
            for row in rows:
                if row.masked:
                    self.warn(
                        f"{row.file} was edited within a mask; without --mask the whole picture "
                        "is drawn from its latent."
                    )
            return None
        if delta.method == "optimise":
            return None
        outside = self.models.generator.render(delta.at(0.0)).detach()
        for i, row in enumerate(rows):
            if (source := row.source(outside.shape[-1])) is not None:
                outside[i] = to_tensor(source)[0].to(outside)
        return Region.of(mask, outside)

    def _asked(self, prompts: Sequence[str], delta: Delta) -> Sequence[str]:
        """What CLIP is asked about each row; nothing where no words or no CLIP are at hand."""
        if self.options.prompt:
            return prompts
        if delta.method == "mapper" or not all(prompts):
            return [""] * len(prompts)
        try:
            self.models.scorer  # noqa: B018
        except (MissingWeights, CannotDo):
            return [""] * len(prompts)
        return prompts

    def answer(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer: results, and errors and warnings where there are any."""
        said: dict[str, Any] = {"results": results}
        if self.errors:
            said["errors"] = self.errors
        if self.warnings:
            said["warnings"] = self.warnings
        return said
