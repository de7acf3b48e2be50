"""Channel statistics for global directions: what each StyleSpace channel does to pictures in CLIP.

Source: Patashnik et al. 2021 (StyleCLIP, arXiv 2103.17249), section 6 and appendix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Stream

import torch
from torch import Tensor

from guided.core.protocols import Latent
from guided.core.run import Step
from guided.errors import ShapeError
from guided.guidance.directions import channel_relevance

PUSH = 5.0
"""How far a channel is moved to either side of its mean, in standard deviations."""


def measured_relevance(
    render: Callable[[Latent], Tensor],
    embed: Callable[[Tensor], Tensor],
    start: Latent,
    statistics: Sequence[tuple[Tensor, Tensor]],
    movable: Sequence[str],
    *,
    batch: int = 32,
) -> Stream[Step[object], None, Tensor]:
    """Yield a Step for each code and return unit vectors [channels, D] of all ``movable`` codes.

    ``start`` holds the StyleSpace codes of N portraits, each [N, C_i]; ``statistics`` has mean and
    deviation [C_i] of every code, in its order.  Of each channel the portraits are drawn with the
    mean minus and plus ``PUSH`` deviations; the differences of their embeddings are averaged.

    Raises:
        ShapeError: statistics of another generator.
    """
    named = dict(zip(start, statistics, strict=False))
    for name, leaf in start.items():
        if name not in named or named[name][0].shape != leaf.shape[1:]:
            raise ShapeError(f"The statistics do not fit the code {name!r} of the generator.")
    found: list[Tensor] = []
    for index, name in enumerate(movable):
        mean, deviation = named[name]
        ends = torch.stack([mean - PUSH * deviation, mean + PUSH * deviation], dim=1)
        found.append(_of_code(render, embed, start, name, ends, batch))
        yield Step(index + 1, len(movable), "directions")
    return torch.cat(found)


@torch.no_grad()
def _of_code(
    render: Callable[[Latent], Tensor],
    embed: Callable[[Tensor], Tensor],
    start: Latent,
    name: str,
    ends: Tensor,
    batch: int,
) -> Tensor:
    """The relevance [C, D] of the channels of one code, whose ``ends`` [C, 2] are drawn."""
    count = start[name].shape[0]
    rows = [(channel, side, i) for channel in range(len(ends)) for i in range(count)
            for side in (0, 1)]  # fmt: skip
    parts: list[Tensor] = []
    for first in range(0, len(rows), batch):
        chunk = rows[first : first + batch]
        picks = [i for _, _, i in chunk]
        codes = {key: leaf[picks] for key, leaf in start.items()}
        pushed = codes[name].clone()
        for row, (channel, side, _) in enumerate(chunk):
            pushed[row, channel] = ends[channel, side]
        parts.append(embed(render({**codes, name: pushed})))
    features = torch.cat(parts)
    return channel_relevance(features.view(len(ends), count, 2, -1))
