"""One run of ``edit``: sources opened, each method started once for them, rendered, measured."""

from __future__ import annotations

import logging
from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from guided.core.images import center_square, to_images, to_tensor
from guided.core.loss_tables import loss_roles
from guided.core.prompts import parse
from guided.core.run import Step
from guided.core.seeds import Seeds
from guided.core.text import absolute
from guided.core.world import World
from guided.editing.base import Editor, EditState, Sources, stepped
from guided.editing.latent import LatentEditor, SavedChange
from guided.editing.regions import Region, changes, elsewhere
from guided.editing.strengths import least_agreeing
from guided.editing.texts import ClipEditMetrics
from guided.errors import CannotDo, GuidedError, MissingWeights, UsageError
from guided.models import Models
from guided.tasks._edit_inputs import LATENT_FILES, Opening, Subject, open_mask, whole_mask
from guided.tasks._edit_options import EditOptions, losses_of
from guided.tasks._edit_outputs import Edited, Outputs
from guided.tasks._ledger import Ledger
from guided.tasks._method_tables import table_of
from guided.tasks.base import TaskContext

logger = logging.getLogger(__name__)


@dataclass
class EditJob:
    """One run of the verb: options, method, models, and what gathers on the way.

    ``further`` are the methods to try where CLIP does not agree.
    """

    options: EditOptions
    ctx: TaskContext
    editor: Editor
    models: Models
    outputs: Outputs
    masks: dict[str, Image.Image] = field(default_factory=dict)
    errors: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    further: Sequence[str] = ()
    _last: tuple[tuple[int, ...], EditState] | None = None
    _others: dict[str, EditJob] = field(default_factory=dict)

    @classmethod
    def of(cls, options: EditOptions, ctx: TaskContext, further: Sequence[str] = ()) -> EditJob:
        """The job, with no model loaded yet."""
        editor = options.editor
        styleclip = getattr(editor, "preprocess", "") == "styleclip"
        models = ctx.models.of(
            options, draws=editor.draws, overshoot="keep" if styleclip else "clip"
        )
        if not options.prompt and editor.needs_prompt:
            editor = SavedChange()
        outputs = Outputs(Ledger(ctx, 0), options, set())
        return cls(options, ctx, editor, models, outputs, further=further)

    @property
    def world(self) -> World:
        """The world of the model's images."""
        return self.models.world

    def warn(self, text: str) -> None:
        """Say something in the answer and in the log, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning(text)

    def answer(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer: results, and errors and warnings where there are any."""
        more = {"errors": self.errors, "warnings": self.warnings}
        return {"results": results, **{key: value for key, value in more.items() if value}}

    # ------------------------------------------------------------------ what is edited

    def open_subjects(self) -> Stream[Step[Any], None, list[Subject]]:
        """The subjects of all files that can be opened; failures go into ``errors``."""
        options, files = self.options, self.options.images
        if not files:
            seeds = map(self.ctx.seed_at, range(options.count))
            return [Subject("", f"portrait-{seed}") for seed in seeds]
        size = self.editor.size(self.models)
        latent = isinstance(self.editor, LatentEditor)
        opening = Opening(
            self.ctx, size or 0, options.faces, options.landmarks, options.face,
            self.world.aligned,
        )  # fmt: skip
        subjects: list[Subject] = []
        for position, file in enumerate(files):
            try:
                self._warn_of_stranger(file)
                if latent:
                    subjects += opening.subject(file, position)
                else:
                    subjects.append(self._whole(file, size))
            except UsageError:
                raise
            except GuidedError as error:
                self.errors.append({"file": str(file), "error": str(error)})
            yield Step(position + 1, len(files), "open")
        return subjects

    def _whole(self, file: Path, size: int | None) -> Subject:
        """A whole picture at the method's size, with its mask."""
        path = file if str(file) in self.ctx.given else absolute(file)
        whole = self.ctx.open_image(path)
        picture = whole if size is None else center_square(whole, size)
        subject = Subject(str(path), path.stem, picture)
        if self.options.mask is not None:
            mask = self.options.mask
            self.masks[subject.file] = whole_mask(self.ctx, mask, whole, subject, size)
        return subject

    def _warn_of_stranger(self, file: Path) -> None:
        if file.suffix.lower() in LATENT_FILES or self.world.recognizes(self.ctx.open_image(file)):
            return
        prompt = self.options.prompt[0] if self.options.prompt else "TEXT"
        self.warn(
            f"{file} does not look like {self.world.image}, the only thing the "
            f"{self.world.name} kit knows. For a photograph run: guided edit {file} "
            f'--prompt "{prompt}" --kit photo --method ddpm'
        )

    def pairs(self, subjects: Sequence[Subject]) -> list[tuple[int, str]]:
        """Every subject with every prompt; saved edits keep their own where none is given."""
        self.editor.size(self.models)  # loads, and notes, the model that draws
        if self.options.prompt:
            texts = [text for prompt in self.options.prompt for text, _ in parse(prompt)]
            for cut in self.models.scorer.cuts(texts):
                self.warn(str(cut))
            return [(i, prompt) for i in range(len(subjects)) for prompt in self.options.prompt]
        own = Path(getattr(self.editor, "mapper", "")).stem.replace("_", " ")
        return [(i, own or subject.prompt) for i, subject in enumerate(subjects)]

    def sources(self, subjects: Sequence[Subject], first: int) -> Sources:
        """Some subjects as tensors; ``first`` is the place of the first among all."""
        place, count = self.ctx.device.torch, len(subjects)
        pictures = [
            None if each.picture is None else to_tensor(each.picture).to(place) for each in subjects
        ]
        random = Seeds.of(self.ctx.seed_at(first), count)
        return Sources(
            pictures, self.models,
            seeds=Seeds((self.ctx.seed,) * count) if self.options.images else random,
            latents=[each.latent for each in subjects],
            changes=[each.saved for each in subjects],
            mask=self._masks(subjects), neutral=self.options.neutral,
            losses=losses_of(self.options),
        )  # fmt: skip

    def _masks(self, subjects: Sequence[Subject]) -> Tensor | None:
        """The mask [B, 1, S, S] of each subject, 1 where it may change, if there is one."""
        path, size = self.options.mask, self.editor.size(self.models) or 0
        if path is None:
            return None
        masks = [
            self.masks.get(each.file) or open_mask(self.ctx, path, each, size) for each in subjects
        ]
        images = to_tensor([mask.convert("RGB") for mask in masks])
        return images[:, :1].to(self.ctx.device.torch)

    # ------------------------------------------------------------------ a batch

    def edited(
        self, subjects: Sequence[Subject], chunk: Sequence[tuple[int, str]]
    ) -> Stream[Step[Any], None, list[dict[str, Any]]]:
        """The answer's entries of a batch of subjects with prompts.

        Where CLIP does not agree with an edit, it is done again by each of the further methods, and
        the one that CLIP finds nearer to the prompt is taken.
        """
        edits = yield from self.edits(subjects, chunk)
        for method in self.further:
            rows = [i for i, edit in enumerate(edits) if not edit.metrics.get("agrees", True)]
            if not rows:
                break
            others = yield from self.by(method).edits(subjects, [chunk[i] for i in rows])
            for row, other in zip(rows, others, strict=True):
                edits[row] = edits[row].or_rather(other)
        return [self.outputs.add(edit) for edit in edits]

    def by(self, method: str) -> EditJob:
        """The same run with another method, its usual options and its usual strength."""
        if method not in self._others:
            update = {"method": method, "strength": 1.0, table_of(self.options.method): None}
            options = self.options.model_copy(update=update)
            self._others[method] = replace(
                self, options=options, editor=options.editor, further=(), _last=None
            )
        return self._others[method]

    def edits(
        self, subjects: Sequence[Subject], chunk: Sequence[tuple[int, str]]
    ) -> Stream[Step[Any], None, list[Edited]]:
        """The edits of a batch of subjects with prompts, not saved yet."""
        prompts = [prompt for _, prompt in chunk]
        rows = [subjects[i] for i, _ in chunk]
        state = yield from self._state(subjects, [i for i, _ in chunk])
        before = yield from self._at(state, prompts, 0.0)
        region = self._region(rows, prompts, state, before)
        metrics = ClipEditMetrics(state.sources, self._judged(prompts))
        sweep = list(self.options.sweep)
        if self.options.strength == "auto":
            if not all(prompts) or not self._judged(prompts)[0]:
                raise UsageError(
                    "The strength auto is the least at which CLIP sees the prompt; there is none.",
                    hint="Give --prompt, or a number for --strength.",
                )
            strengths, after, features = yield from least_agreeing(
                self.editor, state, prompts, metrics.texts, lambda images: kept(images, region)
            )
        else:
            strength, features = float(self.options.strength or 0), None
            strengths, sweep = [strength] * len(rows), [strength, *sweep]
        swept = yield from self._swept(state, prompts, sweep)
        sweeps = [kept(images, region) for images in swept]
        if features is None:
            after, *sweeps = sweeps
        before = kept(before, region)
        told = metrics.figures(before, after, state.features_of(before), features)
        figures = self._figures(state, told, before, after)
        sheets = [to_images(images) for images in sweeps]
        edits = []
        both = zip(to_images(before), to_images(after), strict=True)
        for i, (old, new) in enumerate(both):
            frames = yield from self._frames(state, i, prompts[i], strengths[i], region)
            edit = Edited(
                rows[i], prompts[i], self._name(state, i, prompts[i]), strengths[i], old, new,
                figures[i], state.change(i, prompts[i]), region is not None,
                [sheet[i] for sheet in sheets], frames,
            )  # fmt: skip
            edits.append(edit)
        return edits

    def _state(
        self, subjects: Sequence[Subject], rows: Sequence[int]
    ) -> Stream[Step[Any], None, EditState]:
        """What the method knows of the batch's subjects, each once; the last batch's is kept."""
        distinct = tuple(dict.fromkeys(rows))
        if self._last is None or self._last[0] != distinct:
            sources = self.sources([subjects[i] for i in distinct], distinct[0])
            self._last = distinct, (yield from stepped(self.editor.start(sources)))
        return self._last[1].of_rows([distinct.index(row) for row in rows])

    def _at(
        self, state: EditState, prompts: Sequence[str], strength: float
    ) -> Stream[Step[Any], None, Tensor]:
        (images,) = yield from self._swept(state, prompts, [strength])
        return images

    def _swept(
        self, state: EditState, prompts: Sequence[str], strengths: Sequence[float]
    ) -> Stream[Step[Any], None, list[Tensor]]:
        """The images at some strengths.

        Raises:
            UsageError: one below 0, where the method has no opposite.
        """
        if min(strengths, default=0) < 0 and not self.editor.has_opposite:
            raise UsageError(
                f"--method {self.options.method} has no opposite, so strength must be 0 or more, "
                f"not {min(strengths):g}.",
                hint="Say the opposite in words, or take --method text-diff.",
            )
        return (yield from self.editor.sweep(state, prompts, strengths))

    def _region(
        self, rows: Sequence[Subject], prompts: Sequence[str], state: EditState, before: Tensor
    ) -> Region | None:
        """Where the rows may change, if there is a mask; ``optimise`` spares the rest by a loss."""
        if state.mask is None:
            for row in rows:
                if row.masked:
                    self.warn(
                        f"{row.file} was edited within a mask; without --mask the whole picture "
                        "is drawn from its latent."
                    )
            return None
        if self._name(state, 0, prompts[0]) == "optimise":
            return None
        outside = before.detach().clone()
        for i, row in enumerate(rows):
            if (source := row.source(outside.shape[-1])) is not None:
                outside[i] = to_tensor(source)[0].to(outside)
        return Region.of(state.mask, outside)

    def _judged(self, prompts: Sequence[str]) -> Sequence[str]:
        """What CLIP is asked about each row; nothing where no words or no CLIP are at hand."""
        if self.options.prompt:
            return prompts
        if not isinstance(self.editor, SavedChange) or not all(prompts):
            return [""] * len(prompts)
        try:
            self.models.scorer  # noqa: B018
        except (MissingWeights, CannotDo):
            return [""] * len(prompts)
        return prompts

    def _figures(
        self, state: EditState, figures: list[dict[str, Any]], before: Tensor, after: Tensor
    ) -> list[dict[str, Any]]:
        """What CLIP says, how much changed (outside of the mask too), and who it still is."""
        mask = state.mask
        moved = changes(before, after, None)
        rest = elsewhere(before, after) if mask is None else changes(before, after, mask)
        wanted = "identity" in loss_roles(losses_of(self.options))
        same: Tensor | None = None
        if wanted or self.models.has("identity"):
            embed = self.models.of_roles(["identity"])["identity"].embed_images
            same = (embed(before) * embed(after)).sum(1)
        for i, row in enumerate(figures):
            if same is not None:
                row["identity"] = float(same[i])
            row |= {"change": float(moved[i]), "change_outside": float(rest[i])}
        return figures

    def _frames(
        self, state: EditState, row: int, prompt: str, strength: float, region: Region | None
    ) -> Stream[Step[Any], None, list[Image.Image]]:
        """The frames of an animation from the original to the edit, one by one."""
        count, one = self.options.gif, state.of_rows([row])
        own = None if region is None else region.row(row)
        frames = []
        for i in range(count):
            part = strength * i / max(1, count - 1)
            frames += to_images(kept((yield from self._at(one, [prompt], part)), own))
        return frames

    def _name(self, state: EditState, row: int, prompt: str) -> str:
        """The method that made a row: that of the saved edit, where one is drawn again."""
        change = state.change(row, prompt)
        return self.options.method if change is None else change.method


def kept(images: Tensor, region: Region | None) -> Tensor:
    """Images in [0, 1] with what lies outside of the region put back, where there is one."""
    return (images if region is None else region.keep(images)).clamp(0, 1)
