"""Judge the default edit of portraits: scripts/judge edit_default [--count 8] [--words free]

`guided edit PICTURE --prompt TEXT` with no method named, on new portraits: the twelve edits of
`scripts/judge edits`, each as one plain sentence, and edits asked for in everyday words.  T is the
share of edits that the reader sees, O the share of the other attributes that it reads otherwise;
the floor is the picture that was given, the ceiling the renderer's own edit.  In [] are 95 %
intervals (bootstrap over portraits).  CPU seconds are those of one edit, models loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guided.core.files import make_folder, write_text
from guided.worlds.portraits.judging.default_edits import NOTES, default_rows
from guided.worlds.portraits.judging.edit_cases import (
    EDITS,
    FREE_WORD_EDITS,
    Edit,
    cases,
    edit_named,
)
from guided.worlds.portraits.judging.edit_context import EvalContext
from guided.worlds.portraits.judging.edit_figures import edit_figures, tables
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.kits import load_kit

SETS: dict[str, tuple[Edit, ...]] = {"twelve": EDITS, "free": FREE_WORD_EDITS}
ROLES = ("generator", "scorer", "identity", "inverter", "delta", "denoiser", "reader", "judge")
Rows = dict[str, dict[str, list[dict[str, Any]]]]


def judged_edits(
    context: EvalContext, edits: Sequence[Edit], count: int, options: dict[str, Any]
) -> Rows:
    """Judged cases by row of the table, then by edit."""
    found: Rows = {}
    for edit in edits:
        for name, rows in default_rows(context, cases(edit, count), options).items():
            found.setdefault(name, {})[edit.name] = rows
        done = edit_figures(found["default"][edit.name])
        print(f"{edit.name}: T {done.success.value:.2f} O {done.off.value:.2f}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each set of edits; with --out also keep the figures there."""
    parser = tool_parser("judge edit_default", __doc__)
    parser.add_argument("--count", type=int, default=8, help="portraits for each edit")
    parser.add_argument("--words", choices=(*SETS, "both"), default="both")
    parser.add_argument("--edit", action="append", default=[], help="one edit, by name; repeated")
    parser.add_argument("--method", default="", help="a method to compare with the default")
    parser.add_argument("--out", type=Path, help="also write figures.json into this folder")
    parser.add_argument("--device", default=None)
    for role in ROLES:
        parser.add_argument(f"--{role}", default="", help="a model in the place of the kit's")
    given = parser.parse_args(arguments)
    sets = {name: edits for name, edits in SETS.items() if given.words in (name, "both")}
    if given.edit:
        try:
            sets = {"chosen": tuple(map(edit_named, given.edit))}
        except ValueError as error:
            parser.error(str(error))
    if given.count < 1:
        parser.error(f"--count is 1 or more, not {given.count}")
    options = {"method": given.method} if given.method else {}
    roles = {**load_kit("portraits"), **{r: v for r in ROLES if (v := getattr(given, r))}}
    context = EvalContext(roles, given.device)
    first = next(iter(sets.values()))[0]
    default_rows(context, cases(first, 1), options)  # loads every model, so that none is timed
    record = {}
    for label, edits in sets.items():
        kept = judged_edits(context, edits, given.count, options)
        figures = {
            name: edit_figures([row for rows in by_edit.values() for row in rows])
            for name, by_edit in kept.items()
        }
        by_edit = {n: {e: edit_figures(rows) for e, rows in k.items()} for n, k in kept.items()}
        print(f"\n{label}: {len(edits)} edits of {given.count} portraits each\n")
        print(tables(figures, by_edit, NOTES), flush=True)
        record[label] = {name: asdict(each) for name, each in figures.items()}
    if given.out:
        make_folder(given.out)
        write_text(given.out / "figures.json", json.dumps(record, indent=2) + "\n")
    return 0
