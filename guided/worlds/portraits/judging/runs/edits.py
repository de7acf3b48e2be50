"""Judge edits by text: scripts/judge edits [--only ROW,...] [--count 64] [--minutes 8] [--full]

Twelve edits of val portraits, each inverted first (--refine STEPS searches on from the encoder's
code), by every method of judging/edit_methods*.py whose models are here.  T is the share of
edits that the reader sees, O the share of the other attributes that it reads otherwise than in the
reconstruction; what inversion alone loses stands apart.  "to oracle" is the distance to the
renderer's own answer as a share of that of no edit, "outside" the change where that answer changes
nothing, "judge gain" the judge CLIP's.  Identity is no judge: it is a loss of the searching rows.

One-pass methods edit --count portraits for each edit in three repetitions; those that search edit
half as many once, unless --full.  In [] are 95 % intervals (bootstrap over portraits).  CPU seconds
are of batches of 8, "alone" the wall seconds of one edit.  What is done is kept in --out, so a run
that stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from guided.core.files import make_folder, replacing, write_text
from guided.core.images import to_images
from guided.errors import CannotDo, MissingWeights
from guided.judging.result_cache import ResultCache, TimeBudgetSpent, short
from guided.worlds.portraits.drawing.sheet import sheet
from guided.worlds.portraits.judging.edit_cases import EDITS, Edit, Part, edit_named, parts_of
from guided.worlds.portraits.judging.edit_figures import (
    Batch,
    EditedBatch,
    edit_figures,
    judged,
    reconstruction,
    tables,
)
from guided.worlds.portraits.judging.edit_methods import EDIT_METHODS, EditMethod, EvalContext
from guided.worlds.portraits.judging.edit_methods_diffusion import DIFFUSION_METHODS
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.kits import load_kit

EDIT_METHODS |= DIFFUSION_METHODS
ROLES = ("generator", "scorer", "identity", "inverter", "delta", "directions", "denoiser",
         "perceptual", "reader", "judge")  # fmt: skip
BASE = ("generator", "inverter", "identity", "reader", "judge")


class EditBenchmark:
    """Plays rows on parts, and keeps what comes of them."""

    def __init__(self, context: EvalContext, out: Path, minutes: float) -> None:
        self.context, self.out = context, out
        self.kept, self.timed = ResultCache(out), ResultCache.of(out, minutes)
        self.base = {**context.fingerprints(BASE), "refine": context.refine}
        self.state = short(self.base)
        self.tuning = out / f"tuned-{short([self.base, context.roles])}.json"
        if self.tuning.is_file():
            context.tuned.update(json.loads(self.tuning.read_text("utf-8")))

    def rows_of(self, name: str, row: EditMethod, parts: Sequence[Part]) -> dict[str, list[Any]]:
        """What is kept of a row's cases, by edit; edits that the row has no model for are left out.

        Raises:
            MissingWeights, CannotDo: the row cannot work at all.
            OutOfTime: some parts are still to be done.
        """
        key = short([self.base, self.context.fingerprints(row.roles), row.settings, row.strengths])
        found: dict[str, list[Any]] = {}
        why: MissingWeights | None = None
        for part in parts:
            try:
                kept = self.timed.json(
                    f"rows/{name}/{key}-{part.name}.json",
                    partial(self.play, name, row, part),
                    f"{name}: stopped before {part.name}; run again to go on",
                )
            except MissingWeights as error:
                why = error
                continue
            found.setdefault(part.cases[0].edit.name, []).extend(kept)
        if not found and why is not None:
            raise why
        return found

    def play(self, name: str, row: EditMethod, part: Part) -> list[dict[str, Any]]:
        """Edit and judge one part; of an edit's first part also keep a picture and a time alone."""
        context, batch = self.context, self.batch(part)
        known = dict(context.tuned)
        work = row.prepare(context, batch)
        if context.tuned != known:
            write_text(self.tuning, json.dumps(context.tuned, indent=2))
        began = time.process_time()
        drawn = work()
        draw, after = drawn.at, drawn.at(1.0)
        seconds = (time.process_time() - began) / len(part.cases)
        drawn = EditedBatch(lambda s: after if s == 1.0 else draw(s), drawn.before)
        rows = judged(drawn, batch, context.judges, row.strengths)
        rows = [{**each, "seconds": seconds} for each in rows]
        if part.first:
            self.show(part, name, after)
            if part.cases[0].edit == EDITS[0]:
                rows[0]["alone"] = self.alone(row, part)
        return rows

    def alone(self, row: EditMethod, part: Part) -> float:
        """Wall seconds of one edit by itself, models loaded."""
        one = part.cases[:1]
        batch = self.batch(Part(part.name, one, first=False))
        work = row.prepare(self.context, batch)
        began = time.perf_counter()
        work().at(1.0)
        return time.perf_counter() - began

    def batch(self, part: Part) -> Batch:
        """A part with its inverted codes, which are kept too."""
        name = f"codes/{self.state}-{part.name}.safetensors"
        codes = self.kept.tensors(name, lambda: self.context.codes(part.cases))
        codes = {name: leaf[: len(part.cases)] for name, leaf in codes.items()}
        return self.context.batch(part.cases, codes)

    def show(self, part: Part, name: str, after: Tensor) -> None:
        """Keep the first picture of an edit's first part, and its source."""
        edit, size = part.cases[0].edit, self.context.models.generator.size
        source = part.cases[0].picture(size)
        for label, picture in ((name, after[0]), ("source", source)):
            file = self.picture(label, edit)
            make_folder(file.parent)
            with replacing(file) as stream:
                to_images(picture[None])[0].save(stream, "PNG")

    def picture(self, name: str, edit: Edit) -> Path:
        """Where the picture of an edit is kept."""
        return self.out / "pictures" / self.state / name / f"{edit.slug}.png"

    def lost(self, parts: Sequence[Part]) -> dict[str, float]:
        """What inversion alone loses of all sources."""
        name = f"lost-{short([self.base, [part.name for part in parts]])}.json"

        def means() -> dict[str, float]:
            rows = [
                row for p in parts for row in reconstruction(self.batch(p), self.context.judges)
            ]
            return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}

        found: dict[str, float] = self.kept.json(name, means)
        return found


def sheet_of(benchmark: EditBenchmark, names: Sequence[str], edits: Sequence[Edit]) -> Image.Image:
    """One line for each edit: source, then every method's picture; nothing where there is none."""
    columns = ["source", *names]
    size = benchmark.context.models.generator.size
    blank = Image.new("RGB", (size, size), (250, 250, 252))
    images, words = [], []
    for edit in edits:
        for name in columns:
            file = benchmark.picture(name, edit)
            if file.is_file():
                with Image.open(file) as picture:
                    images.append(picture.convert("RGB"))
            else:
                images.append(blank)
            words.append(edit.name if name == "source" else name)
    return sheet(images, len(columns), words)


def table(benchmark: EditBenchmark, given: argparse.Namespace, edits: tuple[Edit, ...]) -> Iterator[
    tuple[str, dict[str, list[Any]]]
]:  # fmt: skip
    """What is kept of each row that can work, by its name."""
    many, few = (given.count, given.seeds), (max(1, given.count // 2), 1)
    for name in given.only or EDIT_METHODS:
        row = EDIT_METHODS[name]
        searching = row.kind == "search" and not given.full
        parts = parts_of(edits, *(few if searching else many))
        try:
            yield name, benchmark.rows_of(name, row, parts)
        except (MissingWeights, CannotDo) as error:
            print(f"{name} is left out: {error}", flush=True)


def listed(text: str) -> list[str]:
    """Names parted by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = tool_parser("judge edits", __doc__)
    parser.add_argument("--only", type=listed, default=[], help=f"rows: {', '.join(EDIT_METHODS)}")
    parser.add_argument("--edits", type=listed, default=[], help="edits, by name")
    parser.add_argument("--count", type=int, default=64, help="portraits for each edit")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions, with other portraits")
    parser.add_argument("--full", action="store_true", help="as many for methods that search")
    parser.add_argument("--refine", type=int, default=0, help="steps of search after the encoder")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long; 0: never")
    parser.add_argument("--out", type=Path, default=Path("outputs") / "judged-edits")
    parser.add_argument("--sheet", type=Path, help="also write the pictures here")
    parser.add_argument("--mappers", type=Path, help="folder of mappers named by edit")
    parser.add_argument("--device", default=None)
    for role in ROLES:
        parser.add_argument(f"--{role}", default="")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; keep them, and the sheet, in --out."""
    parser = options()
    given = parser.parse_args(arguments)
    for name in given.only:
        if name not in EDIT_METHODS:
            parser.error(f"there is no row {name!r}; there are: {', '.join(EDIT_METHODS)}")
    try:
        edits = tuple(map(edit_named, given.edits)) or EDITS
    except ValueError as error:
        parser.error(str(error))
    roles = {**load_kit("portraits"), **{r: v for r in ROLES if (v := getattr(given, r))}}
    make_folder(given.out)
    context = EvalContext(roles, given.device, given.refine, given.mappers)
    try:
        benchmark = EditBenchmark(context, given.out, given.minutes)
    except (MissingWeights, CannotDo) as error:
        print(f"No edit can be judged: {error}")
        return 1
    kept: dict[str, dict[str, list[Any]]] = {}
    done = True
    try:
        kept.update(table(benchmark, given, edits))  # row by row: what is done stays
    except TimeBudgetSpent as stop:
        print(stop)
        done = False
    figures = {name: edit_figures([e for rows in k.values() for e in rows])
               for name, k in kept.items()}  # fmt: skip
    by_edit = {name: {edit: edit_figures(rows) for edit, rows in k.items()}
               for name, k in kept.items()}  # fmt: skip
    alone = {name: each["alone"] for name, k in kept.items() for rows in k.values()
             for each in rows if "alone" in each}  # fmt: skip
    lost = benchmark.lost(parts_of(edits, given.count, given.seeds)) if done and kept else {}
    text = tables(figures, by_edit, {name: row.about for name, row in EDIT_METHODS.items()})
    text += "\nInversion alone: " + ", ".join(f"{k} {v:.3f}" for k, v in lost.items())
    text += "\nAlone, wall seconds: " + ", ".join(f"{k} {v:.2f}" for k, v in alone.items()) + "\n"
    print(text)
    record = {
        "models": benchmark.base, "inversion": lost, "alone": alone,
        "tuned": benchmark.context.tuned,
        "rows": {name: asdict(f) for name, f in figures.items()},
        "by_edit": {n: {e: asdict(f) for e, f in row.items()} for n, row in by_edit.items()},
    }  # fmt: skip
    write_text(given.out / "edits.json", json.dumps(record, indent=2) + "\n")
    write_text(given.out / "edits.md", text)
    if kept:
        sheet_of(benchmark, list(kept), edits).save(given.sheet or given.out / "edits.png")
    return 0 if done else 1
