"""Editing methods that ``scripts/judge edits`` compares: one entry of ``EDIT_METHODS`` each.

A row prepares its work on a batch of cases (untimed), and the work hands over pictures at any
strength.  A row whose models are not here is left out of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from guided.core.run import drain
from guided.editing.strengths import least_agreeing
from guided.editing.texts import ClipEditMetrics
from guided.errors import MissingWeights
from guided.models import Models
from guided.tasks._edit_options import EditOptions, Options
from guided.worlds.portraits.judging import edit_baselines as baselines
from guided.worlds.portraits.judging.edit_cases import EDITS, TUNING, cases
from guided.worlds.portraits.judging.edit_context import (
    EditMethod,
    EvalContext,
    Work,
    by_verb,
    drawn_by,
    latent_editor,
    sources_of,
)
from guided.worlds.portraits.judging.edit_figures import Batch, EditedBatch, compared

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


def _ours(name: str) -> EditMethod:
    options, roles = OURS[name], ("scorer", *NEEDED.get(name, ()))
    more = {"optimise": "; identity is one of its losses", "refine": ": delta, then 30 steps"}
    return EditMethod(
        f"`guided edit --method {name}`{more.get(name, ' with its defaults')}.",
        "search" if name in more else "one-pass",
        lambda context, batch: by_verb(context, batch, options, one_text=False),
        roles,
        options,
    )


def _auto(method: str, context: EvalContext, batch: Batch) -> Work:
    options = Options(prompt=[batch.cases[0].edit.prompt], **OURS[method])
    return _by_editor(context, batch, options, context.models, auto=True)


def _by_editor(
    context: EvalContext, batch: Batch, options: EditOptions, models: Models, *, auto: bool
) -> Work:
    """What an editor proposes, at its own strength or the least that CLIP agrees with."""
    prompts, editor = [case.edit.prompt for case in batch.cases], latent_editor(options)
    sources = sources_of(batch, models, options.neutral)
    metrics = ClipEditMetrics(sources, prompts) if auto else None

    def work() -> EditedBatch:
        state = drain(editor.start(sources))
        delta, least = drain(editor.change_of(state, prompts)), None
        if metrics is not None:
            least, *_ = drain(least_agreeing(editor, state, prompts, metrics.texts))
        return drawn_by(context.models.generator, delta, least)

    return work


def _at_auto(method: str) -> EditMethod:
    return EditMethod(
        f"`{method}` with `--strength auto`: the least strength the guiding CLIP agrees with.",
        "one-pass" if method == "delta" else "search",
        partial(_auto, method), ("scorer", "delta"), OURS[method],
    )  # fmt: skip


def _mapper(context: EvalContext, batch: Batch, *, auto: bool = False) -> Work:
    edit = batch.cases[0].edit
    files = [] if context.mappers is None else sorted(context.mappers.glob(f"{edit.slug}.*"))
    name = str(files[0] if files else f"mapper-{edit.slug}")
    options = Options(prompt=[edit.prompt], method="mapper", mapper={"mapper": name})
    models = context.models.choosing({"mapper": name})
    return _by_editor(context, batch, options, models, auto=auto)


def _labels(context: EvalContext, batch: Batch) -> Work:
    generator, edit, known = context.models.generator, batch.cases[0].edit, context.regressed
    if edit.name not in known:
        known[edit.name] = baselines.label_direction(generator, edit)
    return lambda: baselines.along(generator, batch, known[edit.name], "labels")


# ------------------------------------------------------------------ StyleCLIP, tuned


def _tuned_direction(context: EvalContext, batch: Batch) -> Work:
    edit = batch.cases[0].edit
    key = f"direction/{edit.name}"
    if key not in context.tuned:
        others = cases(edit, TUNED_ON, first=TUNING)
        context.tuned[key] = best_direction(context, context.batch(others, context.codes(others)))
    return by_verb(context, batch, {**DIRECTIONS, **context.tuned[key]}, one_text=True)


def best_direction(context: EvalContext, batch: Batch) -> dict[str, float]:
    """Alpha and beta with the largest T (1 - O) on a batch."""
    best = (-1.0, {"alpha": DIRECTIONS["alpha"], "beta": DIRECTIONS["beta"]})
    for beta in BETAS:
        options = {**DIRECTIONS, "alpha": 1.0, "beta": beta}
        drawn = by_verb(context, batch, options, one_text=True)()
        for alpha, score in zip(ALPHAS, scores(context, drawn, batch, ALPHAS), strict=True):
            best = max(best, (score, {"alpha": alpha, "beta": beta}), key=lambda each: each[0])
    return best[1]


def _tuned_search(context: EvalContext, batch: Batch) -> Work:
    if "optimise" not in context.tuned:
        context.tuned["optimise"] = best_search(context)
    chosen = dict(context.tuned["optimise"])
    factor = chosen.pop("factor")
    work = by_verb(context, batch, {**PUBLISHED, **chosen}, one_text=True)

    def stronger() -> EditedBatch:
        drawn = work()
        return EditedBatch(lambda strength: drawn.at(factor * strength))

    return stronger


def best_search(context: EvalContext) -> dict[str, float]:
    """Weights and strength with the largest T (1 - O) on one portrait for each edit, and some."""
    turns = [EDITS[i % len(EDITS)] for i in range(TUNED_ON)]
    others = [cases(edit, 1, seed=i, first=TUNING)[0] for i, edit in enumerate(turns)]
    parts = (others[first : first + 8] for first in range(0, len(others), 8))
    batches = [context.batch(part, context.codes(part)) for part in parts]
    best: tuple[float, dict[str, float]] = (-1.0, {})
    for near in NEAR:
        for same in SAME:
            options = {**PUBLISHED, "near": near, "keep_identity": same}
            drawn = [by_verb(context, each, options, one_text=True)() for each in batches]
            pairs = [
                compared(each, batch, context.judges.reader, FACTORS)
                for each, batch in zip(drawn, batches, strict=True)
            ]
            hits, offs = (torch.cat([torch.from_numpy(p[i]) for p in pairs]) for i in (0, 1))
            values = (hits.mean(0) * (1 - offs.mean(0))).tolist()
            for factor, value in zip(FACTORS, values, strict=True):
                chosen = {"near": near, "keep_identity": same, "factor": factor}
                best = max(best, (value, chosen), key=lambda each: each[0])
    return best[1]


def scores(
    context: EvalContext, drawn: EditedBatch, batch: Batch, strengths: Sequence[float]
) -> list[float]:
    """T (1 - O) at each strength."""
    hits, offs = compared(drawn, batch, context.judges.reader, strengths)
    found: list[float] = (hits.mean(0) * (1 - offs.mean(0))).tolist()
    return found


# ------------------------------------------------------------------ the registry

_TUNED = (
    f"on {TUNED_ON} other portraits by the reader: the one place where a judge chooses, and it "
    "chooses for the baseline."
)

EDIT_METHODS: dict[str, EditMethod] = {
    "no-edit": EditMethod(
        "the reconstruction.", "reference", lambda context, batch: lambda: baselines.no_edit(batch)
    ),
    "oracle": EditMethod(
        "the renderer's own picture, compared with the source itself.",
        "reference",
        lambda context, batch: lambda: baselines.rendered(batch),
    ),
    "oracle-generator": EditMethod(
        "the generator's picture of the world's own z of the perfect edit, compared with that of "
        "the source: the upper bound of any edit of a latent.",
        "reference",
        lambda context, batch: lambda: baselines.through_world(context.models.generator, batch),
    ),
    "label-direction": EditMethod(
        "least squares of W by the world's labels: the upper bound of a global direction.",
        "one-pass",
        _labels,
    ),
    "styleclip-optimise": EditMethod(
        "the optimisation with the published settings (300 steps, lambda .008 and .005).",
        "search",
        lambda context, batch: by_verb(context, batch, PUBLISHED, one_text=True),
        ("scorer",),
        PUBLISHED,
    ),
    "styleclip-direction": EditMethod(
        "global directions with the published alpha 4.1, beta .15 and templates; where beta leaves "
        "no channel nothing changes.",
        "one-pass",
        lambda context, batch: by_verb(context, batch, DIRECTIONS, one_text=True),
        ("scorer", "directions"),
        DIRECTIONS,
    ),
    "tuned-optimise": EditMethod(
        f"the same optimisation, weights and strength chosen {_TUNED}",
        "search",
        _tuned_search,
        ("scorer",),
        {**PUBLISHED, "near": NEAR, "keep_identity": SAME, "factor": FACTORS},
    ),
    "tuned-direction": EditMethod(
        f"the same directions, alpha and beta chosen for each edit {_TUNED}",
        "one-pass",
        _tuned_direction,
        ("scorer", "directions"),
        {**DIRECTIONS, "alpha": ALPHAS, "beta": BETAS},
    ),
    "optimise": _ours("optimise"),
    "direction": _ours("direction"),
    "mapper": EditMethod(
        "`guided edit --method mapper`, where a mapper of the edit was trained.",
        "one-pass",
        _mapper,
    ),
    "delta": _ours("delta"),
    "refine": _ours("refine"),
    "delta-auto": _at_auto("delta"),
    "refine-auto": _at_auto("refine"),
    "mapper-auto": EditMethod(
        "`mapper` with `--strength auto`.", "one-pass", partial(_mapper, auto=True), ("scorer",)
    ),
}


__all__ = ["EDIT_METHODS", "EvalContext", "MissingWeights", "EditMethod"]
