"""The methods that scripts/judge_edits compares: one entry of ``ROWS`` each, later ones join them.

A row prepares its work on a batch of cases (untimed), and the work hands over pictures at any
strength.  A row whose models are not here is left out of the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from guided.core.editing import Delta  # noqa: E402
from guided.core.run import drained  # noqa: E402
from guided.errors import CannotDo, MissingWeights  # noqa: E402
from guided.guidance.edit import redraw  # noqa: E402
from guided.judging import edit_baselines as baselines  # noqa: E402
from guided.judging.edit_cases import EDITS, TUNING, Case, cases, stacked_pictures  # noqa: E402
from guided.judging.edit_figures import STRENGTHS, Batch, Drawn, Jury, compared  # noqa: E402
from guided.judging.kept import digest_of  # noqa: E402
from guided.judging.reader import Reader  # noqa: E402
from guided.scorers.clip import load_clip  # noqa: E402
from guided.tasks._edit_editors import Judgement, editor_of  # noqa: E402
from guided.tasks._edit_models import EditModels  # noqa: E402
from guided.tasks._edit_options import STRENGTHS as TRIED  # noqa: E402
from guided.tasks._edit_rows import search  # noqa: E402
from guided.tasks._generate_unclip import decoder_folder  # noqa: E402
from guided.tasks.base import Workbench  # noqa: E402
from guided.tasks.edit import Options  # noqa: E402

#: Portraits that StyleCLIP is tuned on, and what is tried.
TUNED_ON = 16
BETAS = (0.03, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
ALPHAS = (1.0, 2.0, 3.0, 4.1, 6.0, 8.0, 10.0)
NEAR, SAME = (0.0001, 0.0005, 0.002, 0.008), (0.0, 0.05)
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5)

#: What StyleCLIP's authors publish, for both methods.
PUBLISHED: dict[str, Any] = {
    "method": "optimise", "steps": 300, "rate": 0.1, "near": 0.008, "keep_identity": 0.005,
    "preprocess": "styleclip",
}  # fmt: skip
DIRECTIONS: dict[str, Any] = {
    "method": "direction", "alpha": 4.1, "beta": 0.15, "template": ["openai"],
}  # fmt: skip
#: Our methods as `guided edit` runs them; a key here differs from the verb's default.
OURS: dict[str, dict[str, Any]] = {
    "optimise": {"method": "optimise", "keep_identity": 0.1},
    "direction": {"method": "direction"},
    "delta": {"method": "delta"},
    "refine": {"method": "refine"},
}
#: The roles they need besides the generator's and CLIP.
NEEDED = {"direction": ("directions",), "delta": ("delta",), "refine": ("delta",)}

Work = Callable[[], Drawn]
Kind = Literal["reference", "one-pass", "search"]
ResultT = TypeVar("ResultT")


@dataclass
class Desk:
    """The models that rows share; ``refine`` is how many steps of search follow the encoder."""

    roles: dict[str, str]
    device: str | None = None
    refine: int = 0
    mappers: Path | None = None
    tuned: dict[str, Any] = field(default_factory=dict)
    regressed: dict[str, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def models(self) -> EditModels:
        """Models for the rows that are ours."""
        return EditModels(Workbench(device_name=self.device, kit=self.roles), {})

    @cached_property
    def unclipped(self) -> EditModels:
        """The same with a generator whose colours may leave [0, 1], as StyleCLIP's do."""
        return EditModels(self.models.bench, {}, "keep")

    @cached_property
    def jury(self) -> Jury:
        """Who judges."""
        place = self.models.bench.device
        return Jury(
            Reader.load(self.roles["reader"], place),
            load_clip(self.roles["judge"], place, role="judge"),
            self.models.identity,
        )

    def codes(self, some: Sequence[Case]) -> dict[str, torch.Tensor]:
        """Inverted latents of the sources."""
        images = stacked_pictures(some, self.models.generator.size)
        images = images.to(self.models.bench.device.torch)
        found = self.models.inverter.invert(images)
        if self.refine:
            found = drained(search(self.models, found, images, self.refine))
        return found

    def batch(self, some: Sequence[Case], codes: dict[str, torch.Tensor]) -> Batch:
        """Cases with their pictures and reconstructions."""
        generator = self.models.generator
        place = self.models.bench.device.torch
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
                found[role] = self.jury.reader.sha256
            elif role == "judge":
                found[role] = self.jury.clip.fingerprint
            elif role == "scorer":
                found[role] = self.models.scorer.fingerprint
            elif role == "denoiser":
                named = self.roles.get(role, "")
                found[role] = digest_of(decoder_folder(named, self.models.bench))
            else:
                path, notes = self.models.need(role), self.models.bench.notes
                found[role] = str(notes.get(self.roles[role]) or notes[path.name])
        return found


@dataclass(frozen=True)
class Row:
    """One method: what it is, the roles it needs besides the generator's, and how it works."""

    about: str
    kind: Kind
    prepare: Callable[[Desk, Batch], Work]
    roles: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    every: tuple[float, ...] = STRENGTHS

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths that are judged; what is only compared with has one."""
        return (1.0,) if self.kind == "reference" else self.every


# ------------------------------------------------------------------ ways to work


def by_verb(desk: Desk, batch: Batch, options: Mapping[str, Any], *, one_text: bool) -> Work:
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
    models = desk.unclipped if chosen.preprocess == "styleclip" else desk.models
    editor = editor_of(chosen, models, "w", None)
    generator = models.generator

    def work() -> Drawn:
        try:
            delta = drained(editor.propose(batch.codes, prompts))
        except CannotDo as error:
            if chosen.method != "direction" or "leaves no channel" not in str(error):
                raise
            return baselines.no_edit(batch)
        return drawn_by(generator, delta)

    return work


def drawn_by(generator: Any, delta: Delta, factors: Sequence[float] | None = None) -> Drawn:
    """A change's pictures in [0, 1]; ``factors`` are what strength 1 means for each row."""

    def at(strength: float) -> torch.Tensor:
        shown = strength if factors is None else [strength * factor for factor in factors]
        return redraw(generator, delta, shown).clamp(0, 1)

    return Drawn(at)


def _ours(name: str) -> Row:
    options, roles = OURS[name], ("scorer", *NEEDED.get(name, ()))
    more = {"optimise": "; identity is one of its losses", "refine": ": delta, then 30 steps"}
    return Row(
        f"`guided edit --method {name}`{more.get(name, ' with its defaults')}.",
        "search" if name in more else "one-pass",
        lambda desk, batch: by_verb(desk, batch, options, one_text=False),
        roles,
        options,
    )


def _auto(method: str, desk: Desk, batch: Batch) -> Work:
    options = Options(prompt=[batch.cases[0].edit.prompt], **OURS[method])
    return _by_editor(desk, batch, options, desk.models, auto=True)


def _by_editor(desk: Desk, batch: Batch, options: Any, models: EditModels, *, auto: bool) -> Work:
    """What an editor proposes, at its own strength or the least that CLIP agrees with."""
    prompts, editor = [c.edit.prompt for c in batch.cases], editor_of(options, models, "w", None)
    judge = Judgement(desk.models, options.neutral, prompts) if auto else None

    def work() -> Drawn:
        delta = drained(editor.propose(batch.codes, prompts))
        least = None if judge is None else judge.smallest(delta, TRIED)
        return drawn_by(desk.models.generator, delta, least)

    return work


def _at_auto(method: str) -> Row:
    return Row(
        f"`{method}` with `--strength auto`: the least strength the guiding CLIP agrees with.",
        "one-pass" if method == "delta" else "search",
        partial(_auto, method), ("scorer", "delta"), OURS[method],
    )  # fmt: skip


def _mapper(desk: Desk, batch: Batch, *, auto: bool = False) -> Work:
    edit = batch.cases[0].edit
    files = [] if desk.mappers is None else sorted(desk.mappers.glob(f"{edit.slug}.*"))
    options = Options(prompt=[edit.prompt], method="mapper", mapper=str(
        files[0] if files else f"mapper-{edit.slug}"))  # fmt: skip
    models = EditModels(desk.models.bench, {"mapper": options.mapper})
    return _by_editor(desk, batch, options, models, auto=auto)


def _labels(desk: Desk, batch: Batch) -> Work:
    generator, edit, known = desk.models.generator, batch.cases[0].edit, desk.regressed
    if edit.name not in known:
        known[edit.name] = baselines.label_direction(generator, edit)
    return lambda: baselines.along(generator, batch, known[edit.name], "labels")


# ------------------------------------------------------------------ StyleCLIP, tuned


def _tuned_direction(desk: Desk, batch: Batch) -> Work:
    edit = batch.cases[0].edit
    key = f"direction/{edit.name}"
    if key not in desk.tuned:
        others = cases(edit, TUNED_ON, first=TUNING)
        desk.tuned[key] = best_direction(desk, desk.batch(others, desk.codes(others)))
    return by_verb(desk, batch, {**DIRECTIONS, **desk.tuned[key]}, one_text=True)


def best_direction(desk: Desk, batch: Batch) -> dict[str, float]:
    """Alpha and beta with the largest T (1 - O) on a batch."""
    best = (-1.0, {"alpha": DIRECTIONS["alpha"], "beta": DIRECTIONS["beta"]})
    for beta in BETAS:
        options = {**DIRECTIONS, "alpha": 1.0, "beta": beta}
        drawn = by_verb(desk, batch, options, one_text=True)()
        for alpha, score in zip(ALPHAS, scores(desk, drawn, batch, ALPHAS), strict=True):
            best = max(best, (score, {"alpha": alpha, "beta": beta}), key=lambda each: each[0])
    return best[1]


def _tuned_search(desk: Desk, batch: Batch) -> Work:
    if "optimise" not in desk.tuned:
        desk.tuned["optimise"] = best_search(desk)
    chosen = dict(desk.tuned["optimise"])
    factor = chosen.pop("factor")
    work = by_verb(desk, batch, {**PUBLISHED, **chosen}, one_text=True)

    def stronger() -> Drawn:
        drawn = work()
        return Drawn(lambda strength: drawn.at(factor * strength))

    return stronger


def best_search(desk: Desk) -> dict[str, float]:
    """Weights and strength with the largest T (1 - O) on one portrait for each edit, and some."""
    turns = [EDITS[i % len(EDITS)] for i in range(TUNED_ON)]
    others = [cases(edit, 1, seed=i, first=TUNING)[0] for i, edit in enumerate(turns)]
    parts = (others[first : first + 8] for first in range(0, len(others), 8))
    batches = [desk.batch(part, desk.codes(part)) for part in parts]
    best: tuple[float, dict[str, float]] = (-1.0, {})
    for near in NEAR:
        for same in SAME:
            options = {**PUBLISHED, "near": near, "keep_identity": same}
            found = [
                compared(by_verb(desk, each, options, one_text=True)(), each, desk.jury.reader,
                         FACTORS)
                for each in batches
            ]  # fmt: skip
            hits, offs = (torch.cat([torch.from_numpy(f[i]) for f in found]) for i in (0, 1))
            values = (hits.mean(0) * (1 - offs.mean(0))).tolist()
            for factor, value in zip(FACTORS, values, strict=True):
                chosen = {"near": near, "keep_identity": same, "factor": factor}
                best = max(best, (value, chosen), key=lambda each: each[0])
    return best[1]


def scores(desk: Desk, drawn: Drawn, batch: Batch, strengths: Sequence[float]) -> list[float]:
    """T (1 - O) at each strength."""
    hits, offs = compared(drawn, batch, desk.jury.reader, strengths)
    found: list[float] = (hits.mean(0) * (1 - offs.mean(0))).tolist()
    return found


# ------------------------------------------------------------------ the registry

_TUNED = (
    f"on {TUNED_ON} other portraits by the reader: the one place where a judge chooses, and it "
    "chooses for the baseline."
)

ROWS: dict[str, Row] = {
    "no-edit": Row(
        "the reconstruction.", "reference", lambda desk, batch: lambda: baselines.no_edit(batch)
    ),
    "oracle": Row(
        "the renderer's own picture, compared with the source itself.",
        "reference",
        lambda desk, batch: lambda: baselines.rendered(batch),
    ),
    "oracle-generator": Row(
        "the generator's picture of the world's own z of the perfect edit, compared with that of "
        "the source: the upper bound of any edit of a latent.",
        "reference",
        lambda desk, batch: lambda: baselines.through_world(desk.models.generator, batch),
    ),
    "label-direction": Row(
        "least squares of W by the world's labels: the upper bound of a global direction.",
        "one-pass",
        _labels,
    ),
    "styleclip-optimise": Row(
        "the optimisation with the published settings (300 steps, lambda .008 and .005).",
        "search",
        lambda desk, batch: by_verb(desk, batch, PUBLISHED, one_text=True),
        ("scorer",),
        PUBLISHED,
    ),
    "styleclip-direction": Row(
        "global directions with the published alpha 4.1, beta .15 and templates; where beta leaves "
        "no channel nothing changes.",
        "one-pass",
        lambda desk, batch: by_verb(desk, batch, DIRECTIONS, one_text=True),
        ("scorer", "directions"),
        DIRECTIONS,
    ),
    "tuned-optimise": Row(
        f"the same optimisation, weights and strength chosen {_TUNED}",
        "search",
        _tuned_search,
        ("scorer",),
        {**PUBLISHED, "near": NEAR, "keep_identity": SAME, "factor": FACTORS},
    ),
    "tuned-direction": Row(
        f"the same directions, alpha and beta chosen for each edit {_TUNED}",
        "one-pass",
        _tuned_direction,
        ("scorer", "directions"),
        {**DIRECTIONS, "alpha": ALPHAS, "beta": BETAS},
    ),
    "optimise": _ours("optimise"),
    "direction": _ours("direction"),
    "mapper": Row(
        "`guided edit --method mapper`, where a mapper of the edit was trained.",
        "one-pass",
        _mapper,
    ),
    "delta": _ours("delta"),
    "refine": _ours("refine"),
    "delta-auto": _at_auto("delta"),
    "refine-auto": _at_auto("refine"),
    "mapper-auto": Row(
        "`mapper` with `--strength auto`.", "one-pass", partial(_mapper, auto=True), ("scorer",)
    ),
}


__all__ = ["ROWS", "Desk", "MissingWeights", "Row"]
