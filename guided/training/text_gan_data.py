"""Batches of a text-to-image GAN: images, conditions and wrong conditions, from a folder.

A condition is the CLIP embedding of a caption or of the image itself, or nothing.
Source: Zhou et al. 2022 (LAFITE), features in the place of texts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.scorers.clip import ClipScorer
from guided.training.folder_pairs import FolderPairs
from guided.training.objective import BatchContext

log = logging.getLogger(__name__)

#: Fewer pictures than this and the augmentation adapts to how well the discriminator knows them.
SMALL = 10_000
#: Neighbours that are embedded together, whoever wants one: no feature depends on its company then.
GROUP = 64


_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
#: How a row is told: by words, by its picture's own feature, not at all.
Way = Literal["text", "image", "free"]
#: Numbers that a row of the augmentation takes.
UNIFORMS = 8


@dataclass(frozen=True)
class TextGanBatch:
    """Images uint8 [n, 3, S, S], z [n, latent], unit CLIP features [n, D] that describe them (of a
    text or of the image itself; zeros ask for anything), wrong ones [n, D], whether there is a
    wrong one [n], the augmentation's uniform numbers [2 n, 8], and codes of what is known to be
    true [n, K] (-1 where unknown).
    """

    pictures: Tensor
    z: Tensor
    text: Tensor
    wrong: Tensor
    mismatched: Tensor
    uniform: Tensor
    truth: Tensor | None = None


@dataclass(frozen=True)
class Mix:
    """Shares of rows that are told by the picture's own feature, and that are told nothing."""

    image: float = 0.25
    free: float = 0.10
    noise: float = 0.1

    def way(self, uniform: float) -> Way:
        """How a row with that number in [0, 1) is told."""
        return "image" if uniform < self.image else "free" if uniform >= 1 - self.free else "text"


@dataclass(frozen=True)
class TextGanValidation:
    """What a monitor asks for: pictures in [0, 1] [n, 3, S, S], texts that are true of them, texts
    that are not, and what was said in words."""

    images: Tensor
    texts: Tensor
    wrong: Tensor
    words: list[str]


class Scenes(Protocol):
    """Where a text GAN's batches come from; ``latent`` is the width of z."""

    @property
    def latent(self) -> int:
        """How many numbers make a z."""
        ...

    @property
    def small(self) -> bool:
        """Whether there are so few images that a discriminator could learn them by heart."""
        ...

    def batch(self, share: BatchContext) -> TextGanBatch:
        """This process's rows of a batch."""
        ...

    def validation_set(self, count: int) -> TextGanValidation:
        """What the monitor looks at."""
        ...

    def words(self) -> list[str]:
        """Every word of the captions, in lower case, sorted."""
        ...

    def close(self) -> None:
        """Let go of workers and memory."""
        ...


class _Group(NamedTuple):
    """Neighbours of a folder: pictures uint8 [n, 3, S, S], their unit features [n, D], and those
    of each one's captions, n times [captions, D].
    """

    pictures: Tensor
    features: Tensor
    texts: Sequence[Tensor]


class FolderScenes:
    """Batches of a folder; everything is decoded and embedded once, when it is first wanted.

    A wrong text is that of another picture of the batch, unless CLIP finds it as fitting as texts
    usually are (the mean cosine of pictures with their own): then the row has none.
    """

    def __init__(self, pairs: FolderPairs, scorer: ClipScorer, latent: int, mix: Mix) -> None:
        self.pairs, self.scorer, self.latent, self.mix = pairs, scorer, latent, mix
        self.entries = pairs.entries
        self._groups: dict[int, _Group] = {}
        scorer.texts.report(pairs.corpus())

    @property
    def small(self) -> bool:
        """Whether there are so few pictures that a discriminator could learn them by heart."""
        return len(self.entries) < SMALL

    @torch.no_grad()
    def batch(self, share: BatchContext) -> TextGanBatch:
        """This process's rows of a batch, drawn without repetition while the folder lasts."""
        draw = share.generator("pictures")
        count = len(self.entries)
        order = torch.cat(
            [torch.randperm(count, generator=draw) for _ in range(-(-share.size // count))]
        )
        rows = order[: share.size][share.rows].tolist()
        uniform = torch.rand(share.size, 2, UNIFORMS, generator=draw)[share.rows]
        picks, kind = torch.rand(2, share.size, generator=draw)[:, share.rows]
        noise = torch.randn(share.size, self.scorer.width, generator=draw)[share.rows]
        z = torch.randn(share.size, self.latent, generator=draw)[share.rows]
        pictures, seen = self._pictures(rows)
        texts = self._texts(rows, picks.tolist())
        text, wrong, mismatched = self._conditions(seen, texts, kind, noise)
        return TextGanBatch(
            pictures, z, text, wrong, mismatched,
            uniform.transpose(0, 1).reshape(-1, UNIFORMS),
        )  # fmt: skip

    def _conditions(
        self, seen: Tensor, texts: Tensor, kind: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_image, free = kind < self.mix.image, kind >= 1 - self.mix.free
        fits = (seen * texts).sum(1)
        mismatched = (seen * texts.roll(1, 0)).sum(1) < fits.mean()
        text = torch.where(by_image[:, None], seen, jittered(texts, noise, self.mix.noise))
        other = jittered(texts.roll(1, 0), noise, self.mix.noise)
        wrong = torch.where(by_image[:, None], seen.roll(1, 0), other)
        text[free], wrong[free], mismatched[free] = 0.0, 0.0, False
        return text, wrong, mismatched

    def _pictures(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Pictures uint8 [n, 3, S, S], their middle squares, and their unit features [n, D]."""
        found = [(self._group(row // GROUP), row % GROUP) for row in rows]
        pictures = torch.stack([group.pictures[place] for group, place in found])
        features = torch.stack([group.features[place] for group, place in found])
        return pictures.contiguous(memory_format=torch.channels_last), features

    def _texts(self, rows: list[int], picks: list[float]) -> Tensor:
        """The unit features [n, D] of one caption of each row."""
        found = []
        for row, pick in zip(rows, picks, strict=True):
            texts = self._group(row // GROUP).texts[row % GROUP]
            found.append(texts[int(pick * len(texts))])
        return torch.stack(found)

    def _group(self, number: int) -> _Group:
        """Some neighbours, decoded and embedded when one of them is first wanted."""
        if number not in self._groups:
            if not self._groups:
                log.info("decoding and embedding %d images, once", len(self.entries))
            some = self.entries[number * GROUP : (number + 1) * GROUP]
            pictures = self.pairs.squares(some)
            texts = self.scorer.embed_texts([text for each in some for text in each.captions])
            self._groups[number] = _Group(
                pictures,
                self.scorer.embed_images(to_float(pictures)).cpu(),
                torch.split(texts.cpu(), [len(each.captions) for each in some]),
            )
        return self._groups[number]

    @torch.no_grad()
    def validation_set(self, count: int) -> TextGanValidation:
        """Pictures spread over the folder, with a caption of their own and one of another."""
        step = max(len(self.entries) // max(count, 1), 1)
        rows = list(range(0, len(self.entries), step))[:count]
        pictures, _ = self._pictures(rows)
        texts = self._texts(rows, [0.0] * len(rows))
        words = [self.entries[row].captions[0] for row in rows]
        return TextGanValidation(to_float(pictures), texts, texts.roll(1, 0), words)

    def words(self) -> list[str]:
        """Every word of the captions, in lower case, sorted."""
        return spoken(text for entry in self.entries for text in entry.captions)

    def close(self) -> None:
        """Forget the decoded images."""
        self._groups.clear()
        self.pairs.close()


def jittered(features: Tensor, noise: Tensor, amount: float) -> Tensor:
    """Unit features [n, D] with normal noise of that length mixed in, unit again.

    Source: Zhou et al. 2022 (LAFITE), perturbed features.
    """
    moved = (1 - amount) * features + amount * F.normalize(noise, dim=1)
    return F.normalize(moved, dim=1)


def spoken(texts: Iterable[str]) -> list[str]:
    """Every word of some texts, in lower case, sorted."""
    return sorted({word.lower() for text in texts for word in _WORD.findall(text)})


def to_float(pictures: Tensor) -> Tensor:
    """Pictures uint8 as float32 in [0, 1]."""
    return pictures.float().div(255)
