"""The default edit: what ``guided edit PICTURE --prompt TEXT`` gives, with no method named.

The verb itself runs, on pictures in memory; the reader and the judge CLIP judge what it returns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.run import drain
from guided.errors import CannotDo
from guided.tasks import edit
from guided.tasks._edit_options import Options
from guided.worlds.portraits.judging.edit_baselines import rendered
from guided.worlds.portraits.judging.edit_cases import Case, stacked_pictures
from guided.worlds.portraits.judging.edit_context import EvalContext
from guided.worlds.portraits.judging.edit_figures import Batch, EditedBatch, judged

#: The side of a judged picture, as ``guided portraits`` draws it.
SIZE = 128
NOTES = {
    "default": "`guided edit PICTURE --prompt TEXT`; O against the same at strength 0.",
    "default, whole": "the same; O against the picture that was given, inversion included.",
    "unchanged": "the picture that was given: the floor.",
    "renderer": "the renderer's own edit of it: the ceiling.",
}


@dataclass(frozen=True)
class DefaultEdits:
    """Images before and after the edit, each [B, 3, S, S] in [0, 1], on the CPU.

    ``before`` is what the method makes of the source at strength 0; ``seconds`` is the CPU time of
    one edit.
    """

    before: Tensor
    after: Tensor
    seconds: float


def default_edits(
    context: EvalContext, images: Sequence[Image.Image], prompt: str, **options: Any
) -> DefaultEdits:
    """What the verb makes of images and a prompt; ``options`` are further keys of its recipe.

    Raises:
        CannotDo: an image that the verb could not edit.
    """
    ctx = context.ctx
    names = [f"picture-{i}" for i in range(len(images))]
    ctx.given = dict(zip(names, images, strict=True))
    chosen = Options(images=[Path(name) for name in names], prompt=[prompt], strip=True, **options)
    began = time.process_time()
    answer = drain(edit.run(chosen, ctx)).answer
    seconds = (time.process_time() - began) / len(images)
    if answer.get("errors"):
        raise CannotDo(f"{prompt!r} could not be judged: {answer['errors'][0]['error']}")
    rows = answer["results"]
    before = [_left_of(row["strip"].image, row["image"].image.size) for row in rows]
    return DefaultEdits(to_tensor(before), to_tensor([row["image"].image for row in rows]), seconds)


def _left_of(strip: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The first of two images of a size that stand side by side with even gaps."""
    gap = (strip.width - 2 * size[0]) // 3
    return strip.crop((gap, gap, gap + size[0], gap + size[1]))


def default_rows(
    context: EvalContext, some: Sequence[Case], options: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Judged cases of one edit, by the names of ``NOTES``."""
    images = stacked_pictures(some, SIZE)
    sources = [Image.fromarray(each) for each in _bytes(images)]
    made = default_edits(context, sources, some[0].edit.text, **options)
    batch = Batch(list(some), images, made.before, {})
    ways = {
        "default": (EditedBatch(lambda strength: made.after), made.seconds),
        "default, whole": (EditedBatch(lambda strength: made.after, images), made.seconds),
        "unchanged": (EditedBatch(lambda strength: images, images), 0.0),
        "renderer": (rendered(batch), 0.0),
    }
    return {
        name: [{**row, "seconds": seconds} for row in judged(drawn, batch, context.judges, (1.0,))]
        for name, (drawn, seconds) in ways.items()
    }


def _bytes(images: Tensor) -> Any:
    return images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
