"""Judge generators by short prompts: scripts/judge short_prompts --generator gan [--free]

Prompts that name exactly one, two or three attributes, in training's words or (--free) in everyday
ones; pictures as `guided generate TEXT --method METHOD` makes them.  "met" is the share of what is
named that the reader sees, "all" the share of prompts of which it sees everything, each with its
95 % interval; the floor is a random portrait, the ceiling the renderer's.  Prompts that name a pair
of values kept from training stand apart ("pairs").
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from guided.core.files import make_folder, write_text
from guided.tasks.base import TaskContext
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.judging.short_prompts import (
    METHODS,
    NUMBERS,
    ShortRow,
    caption_prompts,
    default_maker,
    free_prompts,
    short_row,
)
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.kits import load_kit

ROLES = ("text_gan", "denoiser", "prior", "scorer", "reader")


def line(label: str, count: int, row: ShortRow) -> str:
    """One line of the table."""
    worst = min(row.made.by_key, key=lambda key: row.made.by_key[key].value)
    cells = [
        f"{word} {getattr(row.made, name)} floor {getattr(row.floor, name).value:.3f} "
        f"ceiling {getattr(row.ceiling, name).value:.3f}"
        for word, name in (("met", "met"), ("all", "whole"))
    ]
    least = row.made.by_key[worst]
    table = "  ".join(cells)
    return f"{label:10s} {count:5d}  {table}  least {worst} {least.value:.2f} of {least.count}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each generator; with --out also keep the figures there."""
    parser = tool_parser("judge short_prompts", __doc__)
    parser.add_argument("--generator", action="append", choices=METHODS, help="repeated; all")
    parser.add_argument("--count", type=int, default=200, help="prompts of each number")
    parser.add_argument("--free", action="store_true", help="prompts in everyday words")
    parser.add_argument("--out", type=Path, help="also write figures.json into this folder")
    parser.add_argument("--device", default=None)
    for role in ROLES:
        parser.add_argument(f"--{role}", default="", help="a model in the place of the kit's")
    given = parser.parse_args(arguments)
    if given.count < 1:
        parser.error(f"--count is 1 or more, not {given.count}")
    kit = {**load_kit("portraits"), **{r: v for r in ROLES if (v := getattr(given, r))}}
    ctx = TaskContext(device_name=given.device, kit=kit, world_name="portraits")
    reader = Reader.load(kit["reader"], ctx.device)
    prompts_of = free_prompts if given.free else caption_prompts
    record: dict[str, dict[str, object]] = {}
    for method in given.generator or METHODS:
        print(f"\n{method}, {'everyday words' if given.free else 'words of training'}")
        make = default_maker(method, ctx)
        for pairs in (False, True):
            for number in NUMBERS:
                if pairs and number == 1:
                    continue
                prompts = prompts_of(number, given.count, pairs=pairs)
                if not prompts:
                    continue
                began = time.process_time()
                row = short_row(make, reader, prompts)
                label = f"{'pairs' if pairs else 'new'}_{number}"
                print(line(label, len(prompts), row), flush=True)
                spent = (time.process_time() - began) / len(prompts)
                record.setdefault(method, {})[label] = {**asdict(row), "cpu_seconds": spent}
    if given.out:
        make_folder(given.out)
        write_text(given.out / "figures.json", json.dumps(record, indent=2) + "\n")
    return 0
