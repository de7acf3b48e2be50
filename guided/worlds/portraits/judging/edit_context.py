"""What compared editing methods share: models, cases as batches, runs of ``guided edit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from guided.core.delta import Delta
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.editing.base import AUTO, Sources
from guided.editing.latent import LatentEditor, search
from guided.errors import CannotDo
from guided.guidance.edit import redraw
from guided.judging.result_cache import digest_of
from guided.models import Models
from guided.scorers.clip import load_clip
from guided.tasks._edit_options import EditOptions, Options
from guided.tasks.base import TaskContext
from guided.worlds.portraits.judging import edit_baselines as baselines
from guided.worlds.portraits.judging.edit_cases import Case, stacked_pictures
from guided.worlds.portraits.judging.edit_figures import STRENGTHS, Batch, EditedBatch, Judges
from guided.worlds.portraits.judging.reader import Reader

Work = Callable[[], EditedBatch]
Kind = Literal["reference", "one-pass", "search"]
ResultT = TypeVar("ResultT")


@dataclass
class EvalContext:
    """The models that rows share; ``refine`` is how many steps of search follow the encoder."""

    roles: dict[str, str]
    device: str | None = None
    refine: int = 0
    mappers: Path | None = None
    tuned: dict[str, Any] = field(default_factory=dict)
    regressed: dict[str, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def ctx(self) -> TaskContext:
        """What a verb is run with: the roles' models, nothing saved."""
        return TaskContext(device_name=self.device, kit=self.roles, world_name="portraits")

    @cached_property
    def models(self) -> Models:
        """Models for the rows that are ours."""
        return self.ctx.models

    @cached_property
    def unclipped(self) -> Models:
        """The same with a generator whose colours may leave [0, 1], as StyleCLIP's do."""
        return self.models.choosing({}, overshoot="keep")

    @cached_property
    def judges(self) -> Judges:
        """Who judges."""
        place = self.models.device
        return Judges(
            Reader.load(self.roles["reader"], place),
            load_clip(self.roles["judge"], place, role="judge"),
            self.models.identity,
        )

    def codes(self, some: Sequence[Case]) -> dict[str, torch.Tensor]:
        """Inverted latents of the sources."""
        images = stacked_pictures(some, self.models.generator.size)
        images = images.to(self.models.device.torch)
        found = self.models.inverter.invert(images)
        if self.refine:
            found = drain(search(self.models, found, images, self.refine))
        return found

    def batch(self, some: Sequence[Case], codes: dict[str, torch.Tensor]) -> Batch:
        """Cases with their pictures and reconstructions."""
        generator = self.models.generator
        place = self.models.device.torch
        codes = {name: leaf.to(place) for name, leaf in codes.items()}
        with torch.no_grad():
            before = generator.render(codes)
        images = stacked_pictures(some, generator.size).to(place)
        return Batch(list(some), images, before, codes)

    def fingerprints(self, roles: Sequence[str]) -> dict[str, str]:
        """What tells the models of some roles from others.

        Raises:
            MissingWeights: one that is not here.
        """
        found = {}
        for role in roles:
            if role == "reader":
                found[role] = self.judges.reader.sha256
            elif role == "judge":
                found[role] = self.judges.clip.fingerprint
            elif role == "scorer":
                found[role] = self.models.scorer.fingerprint
            elif role == "denoiser":
                found[role] = digest_of(self.models.needed(role).locate().folder)
            else:
                path, notes = self.models.need(role), self.models.notes
                found[role] = str(notes.get(self.roles[role]) or notes[path.name])
        return found


@dataclass(frozen=True)
class EditMethod:
    """One method: what it is, the roles it needs besides the generator's, and how it works."""

    about: str
    kind: Kind
    prepare: Callable[[EvalContext, Batch], Work]
    roles: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    every: tuple[float, ...] = STRENGTHS

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths that are judged; what is only compared with has one."""
        return (1.0,) if self.kind == "reference" else self.every


# ------------------------------------------------------------------ ways to work


def by_verb(
    context: EvalContext, batch: Batch, options: Mapping[str, Any], *, one_text: bool
) -> Work:
    """The change that ``guided edit`` proposes with some options.

    ``one_text``: prompts are single sentences beside the edit's neutral one, both without their
    article where templates have one.
    Where beta leaves no channel, everything stays as it is.
    """
    prompts = [case.edit.text if one_text else case.edit.prompt for case in batch.cases]
    words = {}
    if one_text:
        words = {"neutral": batch.cases[0].edit.neutral}
    if "template" in options:
        prompts = [prompt.removeprefix("a ") for prompt in prompts]
        words = {name: text.removeprefix("a ") for name, text in words.items()}
    chosen = Options(prompt=prompts[:1], **words, **options)
    editor = latent_editor(chosen)
    styleclip = getattr(editor, "preprocess", "") == "styleclip"
    models = context.unclipped if styleclip else context.models
    sources = sources_of(batch, models, chosen.neutral)

    def work() -> EditedBatch:
        try:
            state = drain(editor.start(sources))
            delta = drain(editor.change_of(state, prompts))
        except CannotDo as error:
            if chosen.method != "direction" or "leaves no channel" not in str(error):
                raise
            return baselines.no_edit(batch)
        return drawn_by(models.generator, delta)

    return work


def latent_editor(options: EditOptions) -> LatentEditor:
    """The editor of options whose method changes latents."""
    editor = options.editor
    assert isinstance(editor, LatentEditor)
    return editor


def sources_of(batch: Batch, models: Models, neutral: str = AUTO) -> Sources:
    """The inverted latents of a batch as what is edited."""
    count = len(batch.cases)
    rows = [{name: leaf[i : i + 1] for name, leaf in batch.codes.items()} for i in range(count)]
    return Sources([None] * count, models, Seeds.of(0, count), latents=rows, neutral=neutral)


def drawn_by(generator: Any, delta: Delta, factors: Sequence[float] | None = None) -> EditedBatch:
    """A change's pictures in [0, 1]; ``factors`` are what strength 1 means for each row."""

    def at(strength: float) -> torch.Tensor:
        shown = strength if factors is None else [strength * factor for factor in factors]
        return redraw(generator, delta, shown).clamp(0, 1)

    return EditedBatch(at)
