"""What every method of ``generate`` shares: its rows, and the contact sheet of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guided.core.run import LazyImages, OutputImage
from guided.tasks.base import TaskContext

if TYPE_CHECKING:
    from guided.tasks._generate_options import Options


def rows_of(options: Options, ctx: TaskContext) -> list[tuple[str, int]]:
    """A prompt and a seed for each image: ``count`` of them for each prompt, from the first seed
    on."""
    seeds = [ctx.seed_at(index) for index in range(options.count)]
    return [(prompt, seed) for prompt in options.prompts for seed in seeds]


def sheet_of(results: Sequence[Mapping[str, Any]], options: Options) -> dict[str, OutputImage]:
    """The answer's ``sheet`` where it is asked for: all images, a row for each prompt."""
    from guided.core.images import grid

    if not options.sheet:
        return {}
    images = LazyImages(len(results), lambda i: results[i]["image"].image)
    return {"sheet": OutputImage("sheet.png", grid(images, options.count))}
