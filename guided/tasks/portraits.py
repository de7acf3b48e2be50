"""Draw portraits of the world, with everything there is to know about each.

Portrait i shows world seed ``seed + i`` of a split.  Beside the pictures, ``portraits.jsonl`` has
one line a portrait: its attributes, captions, boxes, questions, drawing steps and tags.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from guided.core.run import Picture, Result, Step
from guided.tasks.base import Steps, TaskOptions, Workbench, option

INDEX = "portraits.jsonl"


class Options(TaskOptions):
    """The recipe keys of ``portraits``."""

    count: int = option("how many portraits", 16, ge=1, le=1_000_000)
    split: Literal["train", "val", "test"] = option(
        "train and val never show the held-out pairs of values; every test portrait shows one",
        "train",
    )
    size: int = option("width and height in pixels", 128, ge=32, le=1024)


def run(options: Options, bench: Workbench) -> Steps:
    """Draw the portraits into the run folder, or keep them in memory where there is none.

    A portrait whose picture is already there is not drawn again, so an interrupted run goes on
    where it was; ``portraits.jsonl`` is written at the end.
    """
    folder, entries, pictures = bench.folder, [], []
    for index in range(options.count):
        seed = bench.seed + index
        if folder is None:
            pictures.append(_drawn(options, seed))
        elif not (folder / _name(options, seed)).exists():
            bench.save(_drawn(options, seed))
        entries.append(_entry(options, seed))
        yield Step(index + 1, options.count, "portraits")
    if folder is None:
        return Result({"count": options.count, "portraits": entries}, pictures)
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    answer = {"folder": str(folder), "count": options.count}
    return Result(answer, files={INDEX: lines})


def _name(options: Options, seed: int) -> str:
    return f"{options.split}-{seed:06d}-{options.size}.png"


def _drawn(options: Options, seed: int) -> Picture:
    """The picture of a world seed."""
    from guided.portraits import draw, sample

    portrait = sample(seed, options.split)
    note = {"world_seed": seed, "split": options.split}
    return Picture(_name(options, seed), draw(portrait, options.size), note=note)


def _entry(options: Options, seed: int) -> dict[str, Any]:
    """All that is known of the portrait of a world seed: its line of ``portraits.jsonl``."""
    from guided.portraits import compose, part_boxes, sample
    from guided.portraits.record import record

    portrait = sample(seed, options.split)
    boxes = part_boxes(compose(portrait), options.size)
    return record(portrait, seed, _name(options, seed), boxes)
