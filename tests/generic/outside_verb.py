"""Draw the average color of an image as a square: a verb of a user's own package."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from PIL import Image

from guided.core.run import OutputImage, Result, Step
from guided.tasks.base import TaskContext, TaskOptions, argument, option


class Options(TaskOptions):
    """One image, and the side of the square."""

    image: str = argument("the image")
    side: int = option("the side of the square in pixels", 8, ge=1)


def run(options: Options, ctx: TaskContext) -> Generator[Step[Any], None, Result]:
    """One step and one square."""
    color = ctx.open_image(options.image).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    picture = OutputImage("square.png", Image.new("RGB", (options.side, options.side), color))
    yield Step(1, 1, "average")
    return Result({"image": picture}, [picture])
