"""Which word of a caption is owed to which part of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from guided.core.protocols import Scorer
from guided.core.shapes import expect
from guided.errors import CannotDo


@dataclass(frozen=True)
class WordRelevance:
    """A word, how much the caption's cosine owes to it, and where in the picture.

    ``gain`` is the cosine with the word less the cosine without it; ``map`` [grid, grid] is how
    much of that gain goes when that part of the picture is blurred away.
    """

    word: str
    gain: float
    map: Tensor


@torch.no_grad()
def relevance(scorer: Scorer, image: Tensor, text: str, grid: int = 7) -> list[WordRelevance]:
    """The relevance of each word of a caption for a picture [1, 3, H, W] in [0, 1].

    One part of a ``grid`` x ``grid`` is blurred at a time, softly at its edges, and one word is
    left out at a time; map = (e - e_part) . (t - t_word) for unit embeddings e of pictures and t
    of texts.  Works with any scorer, since nothing but embeddings is used.

    Raises:
        ShapeError: not one picture.
        CannotDo: a text of fewer than two words.
    """
    expect(image, "1 3 h w", "image")
    words = text.split()
    if len(words) < 2:
        raise CannotDo(f"The caption {text!r} has too few words to leave one out.")
    shorter = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    texts = scorer.embed_texts([text, *shorter])
    owed = texts[:1] - texts[1:]
    whole = scorer.embed_images(image)
    hidden = torch.cat([scorer.embed_images(part) for part in _hidden(image, grid)])
    gains = (owed @ whole[0]).tolist()
    maps = (owed @ (whole - hidden).T).view(len(words), grid, grid)
    return [
        WordRelevance(word, gain, map_) for word, gain, map_ in zip(words, gains, maps, strict=True)
    ]


def _hidden(image: Tensor, grid: int, batch: int = 16) -> Iterator[Tensor]:
    """The picture with each part in turn replaced by a strong blur, in batches."""
    height, width = image.shape[2:]
    small = functional.interpolate(image, size=(4, 4), mode="area")
    blurred = functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)
    rows = _bumps(height, grid, image)
    columns = _bumps(width, grid, image)
    masks = (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1).unsqueeze(1)
    for start in range(0, len(masks), batch):
        part = masks[start : start + batch]
        yield image * (1 - part) + blurred * part


def _bumps(size: int, grid: int, like: Tensor) -> Tensor:
    """Weights [grid, size] that are 1 in one part each and fall off within a quarter part."""
    places = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size * grid
    middles = torch.arange(grid, device=like.device, dtype=like.dtype) + 0.5
    distance = (places - middles.unsqueeze(1)).abs()
    return (4 * (0.75 - distance)).clamp(0, 1)
