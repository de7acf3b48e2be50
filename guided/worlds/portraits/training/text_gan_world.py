"""Drawn portraits for a text-to-image GAN: pictures, what is said of them, what is not true.

Each picture comes with a z and a caption that together say what it shows: the caption what it
mentions, z everything else.  For what is mentioned, z says something of its own, drawn as the world
draws it, so z and the caption are independent, as they are when the GAN is asked for a picture.
Such pairs can be learnt as a regression before a discriminator is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.scorers.clip import ClipScorer
from guided.training.objective import BatchContext, TrainingContext
from guided.training.text_gan_data import (
    UNIFORMS,
    Mix,
    TextGanBatch,
    TextGanValidation,
    Way,
    jittered,
    spoken,
    to_float,
)
from guided.worlds.portraits.attributes import KEYS, UNSEEN_WORDS, VALUES, chances
from guided.worlds.portraits.drawing.raster import draw
from guided.worlds.portraits.grammar.captions import Caption, caption, edited, value_prompts
from guided.worlds.portraits.grammar.claims import Claim
from guided.worlds.portraits.splits import Split, sample
from guided.worlds.portraits.training.clip_pairs import person_of
from guided.worlds.portraits.training.latent_world import LATENT, conditional, geometry_of
from guided.worlds.portraits.training.pairs import truth_of, without_kept_words
from guided.worlds.portraits.training.pictures import Pictures
from guided.worlds.portraits.training.world_data import ABSENT

_HAT, _HAT_COLOR, _CLOTHING = (KEYS.index(key) for key in ("hat", "hat_color", "clothing"))
#: World seeds of the monitor's own portraits, far from those of every published figure.
MONITOR_SEED = 6_100_000
#: Side of the drawn pictures, which smaller sizes are averaged from.
DRAWN = 128


class SceneConditions(NamedTuple):
    """A true caption, one with one thing wrong (None where there is none), and what z states."""

    said: Caption
    miss: Caption | None
    codes: np.ndarray


def _conditions_of(own: np.ndarray, way: Way, seed: list[int]) -> SceneConditions:
    """What is said of a picture with the codes ``own`` [13]; z states what is left unsaid."""
    stream = np.random.default_rng(seed)
    person = person_of(own)
    said = caption(person, stream)
    miss = edited(said, person, stream)
    if way == "free":
        return SceneConditions(said, miss, own)
    claims: Sequence[Claim] = said.claims
    if way == "image":  # a picture says all that can be seen in it
        seen = person.visible()
        claims = [Claim(k, frozenset({str(person.attributes[k])})) for k in KEYS if seen[k]]
    return SceneConditions(said, miss, free_codes(claims, own, stream))


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
    small = False

    def __init__(
        self,
        ctx: TrainingContext,
        scorer: ClipScorer,
        size: int,
        count: int,
        repeats: int,
        mix: Mix,
    ) -> None:
        self.ctx, self.scorer, self.size, self.mix = ctx, scorer, size, mix
        self.repeats = repeats
        self.drawn = max(size, DRAWN)
        self.count = count

    @cached_property
    def pictures(self) -> Pictures:
        """The drawn pictures."""
        return Pictures.of(self.ctx, self.drawn, self.count)

    @torch.no_grad()
    def batch(self, share: BatchContext) -> TextGanBatch:
        """This process's rows of a batch."""
        pool = self.pictures.pool
        rows = pool.rows(share.seed, share.position, share.size, slice(None), self.repeats)
        labels = pool.labels(rows)
        rows, labels = without_kept_words(rows, labels)
        uniform = share.generator("conditions")
        kind = torch.rand(share.size, generator=uniform)
        noise = torch.randn(share.size, self.scorer.width, generator=uniform)[share.rows]
        places = torch.rand(share.size, 2, UNIFORMS, generator=uniform)[share.rows]
        ways = [self.mix.way(each) for each in kind.tolist()]
        told = [_conditions_of(labels.codes[i], way, [share.number("captions"), i])
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
            places.transpose(0, 1).reshape(-1, UNIFORMS), truth_of(labels, share.rows),
        )  # fmt: skip

    def _conditions(
        self, pictures: Tensor, told: list[SceneConditions], ways: list[Way], noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features, wrong ones and which rows have one, by the way each row is told."""
        words = [[each.said.text, (each.miss or each.said).text] for each in told]
        both = self.scorer.embed_texts([text for pair in words for text in pair]).cpu()
        text = jittered(both[::2], noise, self.mix.noise)
        wrong = jittered(both[1::2], noise, self.mix.noise)
        mismatched = torch.tensor([each.miss is not None for each in told])
        by_image = torch.tensor([way == "image" for way in ways]).nonzero()[:, 0]
        if len(by_image):
            seen = self.scorer.embed_images(to_float(pictures[by_image])).cpu()
            text[by_image], wrong[by_image] = seen, seen.roll(1, 0)
            mismatched[by_image] = len(by_image) > 1
        free = torch.tensor([way == "free" for way in ways])
        text[free], wrong[free], mismatched[free] = 0.0, 0.0, False
        return text, wrong, mismatched

    def validation_set(self, count: int) -> TextGanValidation:
        """New portraits with a caption and a near miss each."""
        return world_validation_set(self.scorer, self.size, count, MONITOR_SEED, "val")

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


@torch.no_grad()
def world_validation_set(
    scorer: ClipScorer, size: int, count: int, first: int, split: Split
) -> TextGanValidation:
    """Portraits of world seeds first, first + 1, ... with a caption and a near miss each."""
    people = [sample(first + i, split) for i in range(count)]
    images = to_tensor([draw(person, size) for person in people])
    stream = np.random.default_rng(first)
    said = [caption(person, stream) for person in people]
    miss = [edited(s, p, stream) or s for s, p in zip(said, people, strict=True)]
    words = [each.text for each in said]
    wrong = scorer.embed_texts([each.text for each in miss]).cpu()
    return TextGanValidation(images, scorer.embed_texts(words).cpu(), wrong, words)


def sized(pixels: Tensor, size: int) -> Tensor:
    """Pictures uint8 [n, 3, H, H] averaged down to ``size``, which divides H."""
    if pixels.shape[-1] == size:
        return pixels.contiguous(memory_format=torch.channels_last)
    small = F.avg_pool2d(pixels.float(), pixels.shape[-1] // size)
    return small.round().to(torch.uint8).contiguous(memory_format=torch.channels_last)
