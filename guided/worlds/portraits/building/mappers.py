"""Train a mapper for each edit of the benchmark: scripts/build mappers [--edits NAME,...]

The recipe is recipes/train/mapper.toml with the edit's own words; the files serve
`scripts/judge edits --only mapper --mappers FOLDER`.  A mapper that is there already is kept, and
one that was interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from guided.training.build import read_recipe, train, write_files
from guided.training.finish import WEIGHTS
from guided.worlds.portraits.judging.edit_cases import EDITS
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.recipes import shipped_recipes


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the mappers one after the other."""
    known = {edit.slug: edit for edit in EDITS}
    parser = tool_parser("build mappers", __doc__)
    parser.add_argument("--edits", default=",".join(known), help="edits, by name with hyphens")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, default=Path("outputs/mappers"))
    given = parser.parse_args(arguments)
    for slug in given.edits.split(","):
        if slug not in known:
            parser.error(f"there is no edit {slug!r}; there are: {', '.join(known)}")
        file = f"{slug}.safetensors"
        if (given.out / file).is_file():
            continue
        recipe = read_recipe(shipped_recipes() / "train" / "mapper.toml", given.changes)
        words = {"prompt": known[slug].prompt, "neutral": known[slug].neutral}
        recipe |= {"name": f"mapper-{slug}", "settings": {**recipe["settings"], **words}}
        result = train(recipe, partial(print, flush=True))
        if not result.answer["finished"]:
            print(f"{slug}: stopped at {result.answer['samples']} samples; run again to go on")
            return 1
        write_files({file: result.files[WEIGHTS]}, given.out)
        print(f"{slug}: {given.out / file}", flush=True)
    return 0
