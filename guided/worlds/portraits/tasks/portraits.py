"""Draw portraits of the world, with everything there is to know about each.

Portrait i shows world seed ``seed + i`` of a split.  Beside the pictures, ``portraits.jsonl`` has
one line a portrait: its attributes, captions, boxes, questions, drawing steps and tags.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from guided.core import lineage
from guided.core.files import numbered
from guided.core.reading import RECORD, parse_json
from guided.core.run import OutputImage, Result, Step
from guided.core.seeds import written_seed
from guided.core.text import json_text
from guided.errors import ImageError, OutputError
from guided.tasks._ledger import note_rows
from guided.tasks.base import Steps, TaskContext, TaskOptions, option

INDEX = "portraits.jsonl"
_LONGEST_LINE = 1 << 20


class Options(TaskOptions):
    """The recipe keys of ``portraits``."""

    count: int = option("how many portraits", 16, ge=1, le=1_000_000)
    split: Literal["train", "val", "test"] = option(
        "train and val never show the held-out pairs of values; every test portrait shows one",
        "train",
    )
    size: int = option("width and height in pixels", 128, ge=32, le=1024)


def run(options: Options, ctx: TaskContext) -> Steps:
    """Draw the portraits into the run folder, or keep them in memory where there is none.

    A portrait whose picture is already there is not drawn again, so an interrupted run goes on
    where it was; ``portraits.jsonl`` is written at the end.  Files of the same names that are not
    these portraits are left alone.

    Raises:
        OutputError: ``portraits.jsonl`` is there and tells of something else.
    """
    if ctx.folder is not None:
        made: Result = yield from _saved(options, ctx, ctx.folder)
        return made
    entries, pictures = [], []
    for index in range(options.count):
        pictures.append(_drawn(options, ctx.seed_at(index)))
        entries.append(_entry(options, ctx.seed_at(index), pictures[-1].name))
        yield Step(index + 1, options.count, "portraits")
    return Result({"count": options.count, "portraits": entries}, pictures)


def _saved(options: Options, ctx: TaskContext, folder: Path) -> Steps:
    """The portraits in a folder, each written when it is drawn, so that memory does not grow."""
    _check_index(options, ctx)
    with tempfile.TemporaryFile() as lines:
        for index in range(options.count):
            seed = ctx.seed_at(index)
            path = _there(folder, options, seed) or ctx.save(_drawn(options, seed))
            lines.write(_line(_entry(options, seed, path.name)).encode())
            note_rows(ctx, index + 1, options.count)
            yield Step(index + 1, options.count, "portraits")
        lines.seek(0)
        return Result({"folder": str(folder), "count": options.count}, files={INDEX: lines.read()})


def _check_index(options: Options, ctx: TaskContext) -> None:
    """Refuse a folder whose ``portraits.jsonl`` begins with another portrait than this run's.

    Raises:
        OutputError: it does.
    """
    folder = ctx.folder
    if folder is None or ctx.force or not os.path.lexists(folder / INDEX):
        return
    if not _begins_alike(folder / INDEX, options, ctx.seed):
        raise OutputError(
            f"{folder / INDEX} is there already and tells of other portraits.",
            hint="Name another folder with --out, or replace it with --force.",
        )


def _begins_alike(index: Path, options: Options, seed: int) -> bool:
    """Whether the first line of a ``portraits.jsonl`` tells of the portrait of this seed."""
    if not index.is_file():
        return False
    try:
        with index.open(encoding="utf-8") as file:
            line = file.readline(_LONGEST_LINE)
        name = parse_json(line, **RECORD)["file"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return line == _line(_entry(options, seed, name))


def _there(folder: Path, options: Options, seed: int) -> Path | None:
    """The picture of a world seed that a run like this one saved into the folder earlier."""
    for path in numbered(folder / _name(options, seed)):
        if not os.path.lexists(path):
            return None
        with contextlib.suppress(ImageError):
            known = lineage.read(path)
            if known is not None and dict(known.picture.note) == _note(options, seed):
                return path
    return None


def _note(options: Options, seed: int) -> dict[str, Any]:
    return {"world_seed": written_seed(seed), "split": options.split}


def _line(entry: Mapping[str, Any]) -> str:
    return json_text(entry) + "\n"


def _name(options: Options, seed: int) -> str:
    return f"{options.split}-{seed:06d}-{options.size}.png"


def _drawn(options: Options, seed: int) -> OutputImage:
    """The picture of a world seed."""
    from guided.worlds.portraits import draw, sample

    portrait = sample(seed, options.split)
    picture = draw(portrait, options.size)
    return OutputImage(_name(options, seed), picture, note=_note(options, seed))


def _entry(options: Options, seed: int, file: str) -> dict[str, Any]:
    """All that is known of the portrait of a world seed: its line of ``portraits.jsonl``."""
    from guided.worlds.portraits import compose, part_boxes, sample
    from guided.worlds.portraits.record import record

    portrait = sample(seed, options.split)
    boxes = part_boxes(compose(portrait), options.size)
    return record(portrait, seed, file, boxes)
