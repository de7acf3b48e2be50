"""Read the attributes of drawn portraits: hair, glasses, hat, expression, the word on the shirt."""

from __future__ import annotations

import logging
from typing import Any

from guided.core.run import Result, Step
from guided.core.text import absolute
from guided.errors import CannotDo, ImageError
from guided.tasks.base import Steps, TaskContext, TaskOptions, argument, option

NEEDS = ("reader",)
#: Pictures that are opened and read together.
TOGETHER = 64

logger = logging.getLogger(__name__)


class Options(TaskOptions):
    """The recipe keys of ``read``."""

    images: list[str] = argument("picture files", min_length=1)
    reader: str = option("name of the reader", "")


def run(options: Options, ctx: TaskContext) -> Steps:
    """The likeliest value of every attribute of each picture, and the probability of all values.

    Of a picture that is not square the central square is read.  A picture that is no drawn
    portrait is read all the same, with a warning in the log and in its ``warning``.

    Raises:
        MissingWeights: no reader of that name is on this computer.
        CannotDo: neither a name nor a kit with a reader.
    """
    import torch

    from guided.core.images import center_square, to_tensor
    from guided.nets.reader import SIZE
    from guided.worlds.portraits.judging.reader import Reader

    name = options.reader or ctx.kit.get("reader", "")
    if not name:
        raise CannotDo("No reader is named.", hint="Give --reader, or a kit that has one.")
    reader = Reader.load(name, ctx.device)
    ctx.notes[name] = reader.sha256
    results: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    for start in range(0, len(options.images), TOGETHER):
        names, pictures = [], []
        for file in options.images[start : start + TOGETHER]:
            try:
                picture = center_square(ctx.open_image(file), SIZE)
            except ImageError as error:
                errors.append({"file": _shown(file, ctx), "error": str(error)})
                continue
            names.append(_shown(file, ctx))
            pictures.append(to_tensor(picture))
        for shown, reading in zip(names, reader.read(torch.cat(pictures)) if pictures else (),
                                  strict=True):  # fmt: skip
            entry: dict[str, Any] = {
                "file": shown,
                "attributes": reading.attributes,
                "probabilities": reading.probabilities,
            }
            if not reading.drawn:
                logger.warning("%s: %s", shown, reading.warning)
                entry["warning"] = reading.warning
            results.append(entry)
        yield Step(min(start + TOGETHER, len(options.images)), len(options.images), "read")
    return Result({"results": results, "errors": errors} if errors else {"results": results})


def _shown(file: str, ctx: TaskContext) -> str:
    """A file's absolute path; a picture given in memory keeps its name."""
    return file if file in ctx.given else str(absolute(file))
