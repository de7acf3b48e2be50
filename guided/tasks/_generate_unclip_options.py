"""The recipe keys that ``generate --method unclip`` knows besides those of diffusion."""

from __future__ import annotations

from guided.tasks.base import TaskOptions, option


class UnclipKeys(TaskOptions):
    """What --method unclip knows besides."""

    prior: str = option("a prior's name or folder (unclip)", "")
    prior_steps: int = option("steps of the prior (unclip)", 8, ge=1, le=1000)
    prior_cfg: float = option(
        "classifier-free guidance of the prior, 1 is none (unclip)", 1.0, ge=1
    )
    tries: int = option(
        "embeddings imagined for each picture, of which the nearest to the words is drawn (unclip)",
        2, ge=1, le=256,
    )  # fmt: skip
    reread: bool = option(
        "the decoder reads the words too, not the embedding alone (unclip)", False
    )
