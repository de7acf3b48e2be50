"""Remake shipped weights from their recipes: scripts/build NAME... [--set key=value]

Each NAME is a recipe recipes/train/NAME.toml; the result goes to the folder of its model's name in
guided/zoo/shipped/.  A build that was interrupted goes on where its last checkpoint is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from guided.training.build import RECORDS, read_recipe, train, write_files
from guided.worlds.portraits.tools import tool_names, tool_parser
from guided.zoo.folders import SHIPPED
from guided.zoo.recipes import shipped_recipes


def main(arguments: Sequence[str] | None = None) -> int:
    """Build every model named on the command line, one after the other."""
    files = {file.stem: file for file in sorted((shipped_recipes() / "train").glob("*.toml"))}
    parser = tool_parser("build", __doc__)
    others = [name for name in tool_names("building") if name != "weights"]
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join([*files, *others]))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder for the weights")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in files:
            known = ", ".join([*files, *others])
            parser.error(f"there is no recipe {name!r}; there are: {known}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for name in given.names:
        recipe = read_recipe(files[name], given.changes)
        result = train(recipe, partial(print, flush=True))
        if not result.answer["finished"]:
            print(f"{name}: stopped at {result.answer['samples']} samples; run again to go on")
            return 1
        model = {file: data for file, data in result.files.items() if file not in RECORDS}
        folder = given.out / str(recipe.get("name", name))
        write_files(model, folder)
        print(f"{name}: {folder}")
    return 0
