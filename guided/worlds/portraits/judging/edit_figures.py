"""What came of edits: success, what else changed, and how near the renderer's own answer they are.

The reader and the judge CLIP judge; nothing was optimised against either.  A method hands over
pictures at any strength (``EditedBatch``); figures are kept for each case, so that tables can be
made of any selection later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.protocols import Latent
from guided.worlds.portraits.grammar.frames import JUDGE
from guided.worlds.portraits.judging.clip_figures import classifier
from guided.worlds.portraits.judging.edit_cases import Case, may_change, stacked_pictures
from guided.worlds.portraits.judging.reader import Reader, ReaderOutput

#: Strengths of a method's change; 1 is what it proposes.
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
#: Those of methods for which every strength is a run of its own.
RUNS = (0.5, 1.0)
#: The largest off-target change at which a success counts in ``pure``.
PURE = 0.05
_RESAMPLES = 1000

ResultCache = Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """Cases of one edit: their pictures and what the generator makes of them.

    ``images`` and ``before`` (the reconstruction) are [B, 3, size, size] in [0, 1]; ``codes`` are
    the inverted latents, B rows.
    """

    cases: Sequence[Case]
    images: Tensor
    before: Tensor
    codes: Latent

    @property
    def size(self) -> int:
        """The side of the pictures."""
        return int(self.images.shape[-1])


@dataclass(frozen=True)
class EditedBatch:
    """Edited pictures [B, 3, size, size] in [0, 1] at any strength.

    ``before`` is what they are compared with where that is not the batch's reconstruction.
    """

    at: Callable[[float], Tensor]
    before: Tensor | None = None


@dataclass(frozen=True)
class Judges:
    """Who judges: the reader, the judge CLIP, and (no judge, but a loss of some rows) identity."""

    reader: Reader
    clip: Any
    identity: Any

    def sought(self, case: Case) -> Tensor:
        """The judge's unit embedding [D] of an edit, in the judge's own words."""
        rows = [classifier(self.clip.embed_texts, k, [v], JUDGE) for k, v in case.edit.changes]
        return F.normalize(torch.cat(rows).mean(0), dim=0)


@torch.no_grad()
def judged(
    drawn: EditedBatch, batch: Batch, judges: Judges, strengths: Sequence[float] = STRENGTHS
) -> list[dict[str, Any]]:
    """For each case: hits and share of changed attributes by strength, and figures at strength 1.

    ``hit`` and ``off`` are lists beside ``strengths``; ``identity`` the cosine with the picture
    before; ``apart`` and ``apart_before`` the mean absolute distance to the nearest perfect edit;
    ``outside`` the mean absolute change where a perfect edit changes nothing; ``gain`` that of the
    judge CLIP's cosine with the edit's words.
    """
    before = (batch.before if drawn.before is None else drawn.before).cpu()
    hits, offs = compared(drawn, batch, judges.reader, strengths)
    after = drawn.at(1.0).cpu()
    told = [_distances(case, old, new) for case, old, new in zip(
        batch.cases, before, after, strict=True)]  # fmt: skip
    alike = (judges.identity.embed_images(before) * judges.identity.embed_images(after)).sum(1)
    moved = judges.clip.embed_images(after) - judges.clip.embed_images(before)
    gains = moved @ judges.sought(batch.cases[0])
    return [
        {"hit": hit.tolist(), "off": off.round(6).tolist(), **figures, "seed": case.seed,
         "strengths": list(strengths), "identity": float(same), "gain": float(gain)}
        for hit, off, figures, case, same, gain in zip(
            hits, offs, told, batch.cases, alike, gains, strict=True)
    ]  # fmt: skip


@torch.no_grad()
def compared(
    drawn: EditedBatch, batch: Batch, reader: Reader, strengths: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """By case and strength [B, S]: whether all that was asked for is read, 0 or 1, and the share of
    the other attributes that are read otherwise than in the picture before.
    """
    first = reader.read(batch.before if drawn.before is None else drawn.before)
    found = np.zeros((2, len(batch.cases), len(strengths)))
    for column, strength in enumerate(strengths):
        second = reader.read(drawn.at(strength))
        for row, (case, old, new) in enumerate(zip(batch.cases, first, second, strict=True)):
            found[:, row, column] = _read(case, old, new)
    return found[0], found[1]


def _read(case: Case, before: ReaderOutput, after: ReaderOutput) -> tuple[float, float]:
    hit = case.edit.reached(after.attributes)
    off = [before.attributes[key] != after.attributes[key] for key in case.kept]
    return float(hit), float(np.mean(off))


def _distances(case: Case, before: Tensor, after: Tensor) -> dict[str, float]:
    size = after.shape[-1]
    perfect, keep = case.perfect(size), 1 - may_change(case, size)
    moved = (after - before).abs().mean(0, keepdim=True)
    return {
        "apart": float((after - perfect).abs().mean((1, 2, 3)).min()),
        "apart_before": float((before - perfect).abs().mean((1, 2, 3)).min()),
        "outside": float((moved * keep).sum() / keep.sum().clamp(min=1)),
    }


@torch.no_grad()
def reconstruction(batch: Batch, judges: Judges) -> list[dict[str, float]]:
    """What inversion alone loses of each case: visible attributes ``kept``, ``l1``, ``identity``.

    ``kept`` is the share that the reader names in the reconstruction as the world has them.
    """
    images, before = stacked_pictures(batch.cases, batch.size), batch.before.cpu()
    alike = (judges.identity.embed_images(images) * judges.identity.embed_images(before)).sum(1)
    found = []
    for case, reading, l1, same in zip(
        batch.cases, judges.reader.read(before), (images - before).abs().mean((1, 2, 3)), alike,
        strict=True,
    ):  # fmt: skip
        seen, has = case.source.visible(), case.source.attributes
        kept = [reading.attributes[key] == has[key] for key in has if seen[key]]
        found.append({"kept": float(np.mean(kept)), "l1": float(l1), "identity": float(same)})
    return found


# ------------------------------------------------------------------ tables


@dataclass(frozen=True)
class Span:
    """A mean with the 95 % interval of a bootstrap over portraits."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class EditFigures:
    """A row of the table.

    ``success`` is T, ``off`` O and ``score`` T (1 - O) at strength 1; ``pure`` the largest T of
    the strengths at which O stays within 5 % (0 changes nothing), one strength for all cases;
    ``oracle`` the distance to the perfect edit as a share of that of no edit.
    """

    count: int
    success: Span
    off: Span
    score: Span
    pure: float
    pure_strength: float
    identity: float
    oracle: float
    outside: float
    gain: float
    seconds: float


def edit_figures(kept: Sequence[ResultCache], seed: int = 0) -> EditFigures:
    """The figures of judged cases, all of the same strengths; portraits are resampled together.

    Raises:
        ValueError: no case, or cases of different strengths.
    """
    if not kept or any(row["strengths"] != kept[0]["strengths"] for row in kept):
        raise ValueError("figures need cases, all judged at the same strengths")
    strengths = [float(s) for s in kept[0]["strengths"]]
    hits = np.array([row["hit"] for row in kept], float)
    offs = np.array([row["off"] for row in kept], float)
    own = strengths.index(1.0)
    weights = resampled([int(row["seed"]) for row in kept], seed)
    t, o = weights @ hits[:, own], weights @ offs[:, own]
    means = np.stack([hits.mean(0), offs.mean(0)])
    pure = max(
        ((hit, s) for hit, off, s in zip(*means, strengths, strict=True) if off <= PURE),
        key=lambda each: (each[0], -each[1]),
        default=(0.0, 0.0),
    )
    mean = {name: float(np.mean([row[name] for row in kept]))
            for name in ("identity", "outside", "gain", "seconds")}  # fmt: skip
    at_rest = sum(row["apart_before"] for row in kept)
    return EditFigures(
        count=len(kept),
        success=span_of(means[0, own], t),
        off=span_of(means[1, own], o),
        score=span_of(means[0, own] * (1 - means[1, own]), t * (1 - o)),
        pure=float(pure[0]),
        pure_strength=pure[1],
        oracle=sum(row["apart"] for row in kept) / at_rest if at_rest else math.nan,
        **mean,
    )


def resampled(portraits: Sequence[int], seed: int) -> np.ndarray:
    """Weights [resamples, n] of cases, each row one draw of the portraits with replacement."""
    _, place = np.unique(portraits, return_inverse=True)
    count = int(place.max()) + 1
    stream = np.random.default_rng(seed)
    times = stream.multinomial(count, np.full(count, 1 / count), _RESAMPLES)[:, place]
    return np.asarray(times / np.maximum(times.sum(1, keepdims=True), 1))


def span_of(value: float, draws: np.ndarray) -> Span:
    """A value with the middle 95 % of its draws."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return Span(float(value), float(low), float(high))


def markdown(table: Mapping[str, EditFigures], notes: Mapping[str, str]) -> str:
    """The table as markdown, one row for each method; ``notes`` stand below it by method."""
    head = ("", "cases", "T", "O", "T(1-O)", "T at O <= 5 %", "identity", "to oracle", "outside",
            "judge gain", "CPU s")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, f in table.items():
        cells = (
            name, str(f.count), str(f.success), str(f.off), str(f.score),
            f"{f.pure:.3f} (at {f.pure_strength:g})", f"{f.identity:.3f}", f"{f.oracle:.3f}",
            f"{f.outside:.4f}", f"{f.gain:+.4f}", f"{f.seconds:.2f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    told = [f"- {name}: {said}" for name, said in notes.items() if name in table]
    return "\n".join([*lines, "", *told]) + "\n"


def tables(
    figures: Mapping[str, EditFigures],
    by_edit: Mapping[str, Mapping[str, EditFigures]],
    notes: Mapping[str, str],
) -> str:
    """``markdown`` of the rows over all edits, and their T (1 - O) edit by edit."""
    names = list(dict.fromkeys(edit for row in by_edit.values() for edit in row))
    lines = [markdown(figures, notes), f"| T(1-O) | {' | '.join(by_edit)} |"]
    lines.append(f"|{'---|' * (len(by_edit) + 1)}")
    for edit in names:
        cells = [f"{row[edit].score.value:.2f}" if edit in row else "" for row in by_edit.values()]
        lines.append(f"| {edit} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
