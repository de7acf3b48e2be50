"""The recipe keys that ``generate --method gan`` knows besides the shared ones."""

from __future__ import annotations

from typing import Literal

from guided.tasks.base import TaskOptions, option


class GanKeys(TaskOptions):
    """What --method gan knows besides."""

    gan: str = option("a text GAN's name or weight file (gan)", "")
    truncation: float = option(
        "1: as varied as learnt, 0: the mean picture of each prompt (gan)", 1.0, ge=0, le=1
    )
    precision: Literal["fp32", "bf16"] = option(
        "arithmetic of the generator: bf16 is faster and a little coarser (gan)", "fp32"
    )
    best: int = option("tries for each picture, of which CLIP picks the best (gan)", 1, ge=1, le=64)
    search: int = option("steps of a search for a latent that CLIP likes more (gan)", 0, ge=0)
    search_leaves: Literal["both", "z", "text"] = option("what the search moves (gan)", "both")
    search_rate: float = option("step size of the search (gan)", 0.05, gt=0)
    gif: int = option(
        "also save an animation with so many frames from each picture to the next (gan)", 0, ge=0,
        le=100,
    )  # fmt: skip
