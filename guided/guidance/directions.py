"""Global directions: one change of StyleSpace channels for all pictures, from two texts.

Source: Patashnik et al. 2021 (StyleCLIP, arXiv 2103.17249), section 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.shapes import expect
from guided.errors import CannotDo, ShapeError


def channel_relevance(features: Tensor) -> Tensor:
    """What each channel does to pictures, as unit CLIP vectors [channels, D].

    ``features`` [channels, N, 2, D] are embeddings of N pictures with the channel lowered and
    raised (any length).  Their normalised differences are averaged.
    """
    expect(features, "c n 2 d", "features")
    unit = F.normalize(features, dim=3)
    change = F.normalize(unit[:, :, 1] - unit[:, :, 0], dim=2)
    return F.normalize(change.mean(1), dim=1)


def stylespace_direction(target: Tensor, neutral: Tensor) -> Tensor:
    """The unit difference [D] of two texts given by unit embeddings of their templates [T, D]."""
    means = [F.normalize(F.normalize(each, dim=1).mean(0), dim=0) for each in (target, neutral)]
    return F.normalize(means[0] - means[1], dim=0)


def channel_weights(relevance: Tensor, text: Tensor, beta: float) -> Tensor:
    """How much each channel takes part [channels], the strongest +-1; 0 below the threshold.

    ``relevance`` [channels, D] and ``text`` [D] are unit vectors; channels whose cosine with the
    text stays below ``beta`` are left alone, so a higher beta gives a purer, weaker edit.

    Raises:
        CannotDo: beta above every cosine; the message states the largest that leaves a channel.
    """
    cosines = relevance @ text
    strongest = float(cosines.abs().max())
    if beta > strongest:
        raise CannotDo(
            f"The threshold beta = {beta:g} leaves no channel: the largest cosine is "
            f"{strongest:.3g}.",
            hint=f"Choose beta below {strongest:.3g}.",
        )
    kept = torch.where(cosines.abs() < beta, torch.zeros_like(cosines), cosines)
    return kept / strongest


def style_change(
    weights: Tensor, deviations: Sequence[Tensor], colour_layers: Sequence[int]
) -> list[Tensor]:
    """The change of each StyleSpace code [C_i]: channel weights times the channels' deviation.

    ``weights`` runs over the channels of all codes but ``colour_layers`` (toRGB), whose change is
    zero, in generator order; ``deviations`` are one [C_i] for every code.

    Raises:
        ShapeError: another number of channels in all.
    """
    sizes = [0 if i in colour_layers else len(each) for i, each in enumerate(deviations)]
    if sum(sizes) != weights.shape[0]:
        raise ShapeError(
            f"The statistics are of {weights.shape[0]} channels, but the codes have {sum(sizes)}.",
            hint="They must come from the same generator.",
        )
    parts = torch.split(weights, sizes)
    return [
        part * deviation if size else torch.zeros_like(deviation)
        for part, deviation, size in zip(parts, deviations, sizes, strict=True)
    ]


def fitted_relevance(relevance: Tensor, channels: int) -> Tensor:
    """Published statistics [n, D] filled up with zero rows to ``channels``.

    The public ``fs3.npy`` files stop before the last, finest layers.

    Raises:
        ShapeError: more rows than the generator has channels.
    """
    if relevance.shape[0] > channels:
        raise ShapeError(
            f"The statistics are of {relevance.shape[0]} channels, the generator has {channels}."
        )
    return F.pad(relevance, (0, 0, 0, channels - relevance.shape[0]))
