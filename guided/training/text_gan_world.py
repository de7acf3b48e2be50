"""Drawn portraits for a text-to-image GAN: pictures, what is said of them, what is not true.

Each picture comes with a z and a caption that together say what it shows: the caption what it
mentions, z everything else.  For what is mentioned, z says something of its own, drawn as the world
draws it, so z and the caption are independent, as they are when the GAN is asked for a picture.
Such pairs can be learnt as a regression before a discriminator is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.portraits.attributes import KEYS, UNSEEN_WORDS, VALUES, chances
from guided.portraits.captions import Caption, caption, edited, value_prompts
from guided.portraits.claims import Claim, codes
from guided.portraits.raster import draw
from guided.portraits.splits import Split, sample
from guided.scorers.clip import ClipScorer
from guided.training.clip_pairs import UNSEEN_CODES, person_of
from guided.training.latent_world import LATENT, conditional, geometry_of
from guided.training.objective import Share, Surroundings
from guided.training.pictures import Pictures
from guided.training.world_data import ABSENT, Drawn

_HAT, _HAT_COLOR, _CLOTHING = (KEYS.index(key) for key in ("hat", "hat_color", "clothing"))
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
#: How a row is told: by words, by its picture's own feature, not at all.
Way = Literal["text", "image", "free"]
#: Side of the drawn pictures, which smaller sizes are averaged from.
DRAWN = 128
#: Numbers that a row of the augmentation takes.
LUCK = 8


@dataclass(frozen=True)
class TextGanBatch:
    """Pictures uint8 [n, 3, S, S], z [n, latent], unit CLIP features [n, D] that describe them (of
    a text or of the picture itself; zeros ask for anything), wrong ones [n, D], whether there is a
    wrong one [n], what is true [n, 13] (-1 where unknown), and the augmentation's luck [2 n, 8].
    """

    pictures: Tensor
    z: Tensor
    text: Tensor
    wrong: Tensor
    mismatched: Tensor
    truth: Tensor
    luck: Tensor


@dataclass(frozen=True)
class Mix:
    """Shares of rows that are told by the picture's own feature, and that are told nothing."""

    image: float = 0.25
    free: float = 0.10
    noise: float = 0.1

    def way(self, luck: float) -> Way:
        """How a row with that number in [0, 1) is told."""
        return "image" if luck < self.image else "free" if luck >= 1 - self.free else "text"


class Told(NamedTuple):
    """A true caption, one with one thing wrong (None where there is none), and what z states."""

    said: Caption
    miss: Caption | None
    codes: np.ndarray


def _told(own: np.ndarray, way: Way, seed: list[int]) -> Told:
    """What is said of a picture with the codes ``own`` [13]; z states what is left unsaid."""
    stream = np.random.default_rng(seed)
    person = person_of(own)
    said = caption(person, stream)
    miss = edited(said, person, stream)
    if way == "free":
        return Told(said, miss, own)
    claims: Sequence[Claim] = said.claims
    if way == "image":  # a picture says all that can be seen in it
        seen = person.visible()
        claims = [Claim(k, frozenset({str(person.attributes[k])})) for k in KEYS if seen[k]]
    return Told(said, miss, free_codes(claims, own, stream))


def free_codes(claims: Sequence[Claim], own: np.ndarray, stream: np.random.Generator) -> np.ndarray:
    """Codes [13] that z states when claims are made of a picture with the codes ``own`` [13].

    What is claimed is drawn anew as the world draws it; where a claim leaves a choice and the draw
    is among what it allows, the picture's own value stays.  The colour of a hat counts among the
    colours that are not the clothing's, as in ``latent_world``.
    """
    found = own.astype(np.int64)
    place = None
    if own[_HAT_COLOR] != ABSENT:
        place = int(own[_HAT_COLOR]) - int(own[_HAT_COLOR] > own[_CLOTHING])
    for claim in claims:
        column, values = KEYS.index(claim.key), VALUES[claim.key]
        if column == _HAT_COLOR:
            place = int(stream.integers(len(values) - 1))
            continue
        drawn = int(stream.choice(len(values), p=chances(claim.key)))
        if values[drawn] not in claim.allowed:
            found[column] = drawn
    if place is not None:
        found[_HAT_COLOR] = place + int(place >= found[_CLOTHING])
    return found.astype(np.uint8)


class WorldScenes:
    """Batches of the drawn world."""

    latent = LATENT
    knows_facts = True

    def __init__(
        self,
        around: Surroundings,
        scorer: ClipScorer,
        size: int,
        count: int,
        repeats: int,
        mix: Mix,
    ) -> None:
        self.around, self.scorer, self.size, self.mix = around, scorer, size, mix
        self.repeats = repeats
        self.drawn = max(size, DRAWN)
        self.count = count

    @cached_property
    def pictures(self) -> Pictures:
        """The drawn pictures."""
        return Pictures.of(self.around, self.drawn, self.count)

    @torch.no_grad()
    def batch(self, share: Share) -> TextGanBatch:
        """This process's rows of a batch."""
        pool = self.pictures.pool
        rows = pool.rows(share.seed, share.position, share.size, slice(None), self.repeats)
        labels = pool.labels(rows)
        rows, labels = without_kept_words(rows, labels)
        luck = share.generator("conditions")
        kind = torch.rand(share.size, generator=luck)
        noise = torch.randn(share.size, self.scorer.width, generator=luck)[share.rows]
        places = torch.rand(share.size, 2, LUCK, generator=luck)[share.rows]
        ways = [self.mix.way(each) for each in kind.tolist()]
        told = [_told(labels.codes[i], way, [share.number("captions"), i])
                for i, way in enumerate(ways)]  # fmt: skip
        geometry = np.stack([geometry_of(sample(int(s), "train")) for s in labels.seeds])
        stream = np.random.default_rng(share.number("z"))
        z = conditional(np.stack([each.codes for each in told]), geometry, stream)
        _, pixels = self.pictures.take(rows[share.rows])
        pictures = sized(pixels, self.size)
        text, wrong, mismatched = self._conditions(
            pictures, told[share.rows], ways[share.rows], noise
        )
        return TextGanBatch(
            pictures, torch.from_numpy(z).float()[share.rows], text, wrong, mismatched,
            truth_of(labels, share.rows), places.transpose(0, 1).reshape(-1, LUCK),
        )  # fmt: skip

    def _conditions(
        self, pictures: Tensor, told: list[Told], ways: list[Way], noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features, wrong ones and which rows have one, by the way each row is told."""
        words = [[each.said.text, (each.miss or each.said).text] for each in told]
        both = self.scorer.embed_texts([text for pair in words for text in pair]).cpu()
        text = jittered(both[::2], noise, self.mix.noise)
        wrong = jittered(both[1::2], noise, self.mix.noise)
        mismatched = torch.tensor([each.miss is not None for each in told])
        by_image = torch.tensor([way == "image" for way in ways]).nonzero()[:, 0]
        if len(by_image):
            seen = self.scorer.embed_images(unit(pictures[by_image])).cpu()
            text[by_image], wrong[by_image] = seen, seen.roll(1, 0)
            mismatched[by_image] = len(by_image) > 1
        free = torch.tensor([way == "free" for way in ways])
        text[free], wrong[free], mismatched[free] = 0.0, 0.0, False
        return text, wrong, mismatched

    def words(self) -> list[str]:
        """Every word that captions of the world are made of, in lower case, sorted."""
        pairs = [(k, v) for k in KEYS for v in VALUES[k] if v not in UNSEEN_WORDS]
        stream = np.random.default_rng(0)
        said = [caption(sample(i, "train"), stream).text for i in range(400)]
        return spoken([*(t for k, v in pairs for t in value_prompts(k, v)), *said])

    def close(self) -> None:
        """End the drawing workers."""
        if "pictures" in self.__dict__:
            self.pictures.pool.close()


@dataclass(frozen=True)
class Looks:
    """What a monitor asks for: pictures in [0, 1] [n, 3, S, S], texts that are true of them, texts
    that are not, and what was said in words."""

    images: Tensor
    texts: Tensor
    wrong: Tensor
    words: list[str]


@torch.no_grad()
def world_looks(scorer: ClipScorer, size: int, count: int, first: int, split: Split) -> Looks:
    """Portraits of world seeds first, first + 1, ... with a caption and a near miss each."""
    people = [sample(first + i, split) for i in range(count)]
    images = to_tensor([draw(person, size) for person in people])
    stream = np.random.default_rng(first)
    said = [caption(person, stream) for person in people]
    miss = [edited(s, p, stream) or s for s, p in zip(said, people, strict=True)]
    words = [each.text for each in said]
    wrong = scorer.embed_texts([each.text for each in miss]).cpu()
    return Looks(images, scorer.embed_texts(words).cpu(), wrong, words)


def jittered(features: Tensor, noise: Tensor, amount: float) -> Tensor:
    """Unit features [n, D] with normal noise of that length mixed in, unit again.

    Source: Zhou et al. 2022 (LAFITE), perturbed features.
    """
    moved = (1 - amount) * features + amount * F.normalize(noise, dim=1)
    return F.normalize(moved, dim=1)


def spoken(texts: Iterable[str]) -> list[str]:
    """Every word of some texts, in lower case, sorted."""
    return sorted({word.lower() for text in texts for word in _WORD.findall(text)})


def unit(pictures: Tensor) -> Tensor:
    """Pictures uint8 as float32 in [0, 1]."""
    return pictures.float().div(255)


def sized(pixels: Tensor, size: int) -> Tensor:
    """Pictures uint8 [n, 3, H, H] averaged down to ``size``, which divides H."""
    if pixels.shape[-1] == size:
        return pixels.contiguous(memory_format=torch.channels_last)
    small = F.avg_pool2d(pixels.float(), pixels.shape[-1] // size)
    return small.round().to(torch.uint8).contiguous(memory_format=torch.channels_last)


def truth_of(labels: Drawn, part: slice) -> Tensor:
    """Codes [n, 13] int64 of what can be seen, -1 where it cannot."""
    people: list[Any] = [person_of(code) for code in labels.codes[part]]
    return torch.from_numpy(codes(people).astype(np.int64))


def without_kept_words(rows: np.ndarray, labels: Drawn) -> tuple[np.ndarray, Drawn]:
    """Rows whose shirts show a word that is kept from training replaced by their neighbours."""
    hidden = np.isin(labels.codes[:, KEYS.index("sign")], UNSEEN_CODES)
    if not hidden.any() or hidden.all():
        return rows, labels
    shown = np.flatnonzero(~hidden)
    order = np.arange(len(rows))
    order[hidden] = shown[np.arange(int(hidden.sum())) % len(shown)]
    empty = labels.pixels
    return rows[order], Drawn(
        labels.seeds[order], empty, labels.codes[order], labels.visible[order]
    )
