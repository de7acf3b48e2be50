"""Where a contrastive training takes its pictures and captions from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guided.portraits.attributes import COLOR_KEYS, KEYS, UNSEEN_WORDS, VALUES, Portrait
from guided.portraits.captions import Caption, caption, edited
from guided.portraits.claims import ClaimTable, codes
from guided.portraits.frames import STYLES, CaptionStyle
from guided.portraits.palette import PALETTES
from guided.training.color_truth import judged, named
from guided.training.objective import Share, Surroundings
from guided.training.unshown import never_shown, value_columns
from guided.training.wear import recolor
from guided.training.world_data import ABSENT, Pool

#: How often a window of the pool is gone through before the next one.
REPEATS = 2
COLOR_COLUMNS = np.array([KEYS.index(key) for key in COLOR_KEYS])
SHAPE_KEYS = tuple(key for key in KEYS if key not in COLOR_KEYS)
UNSEEN_CODES = [VALUES["sign"].index(word) for word in UNSEEN_WORDS]


@dataclass
class PairBatch:
    """Pictures uint8 [B, 3, H, W], token ids [N, L] (B own captions, then near misses of the first
    N - B pictures), truth [B, N], attribute codes [B, K] (-1 where unseen), what each text forbids
    [N, COLUMNS], the noise seed, and what counts neither for nor against (``unshown``,
    ``color_truth``): pairs [B, N] and values of attributes, one after the other, [B, V].
    ``colors`` [B, 6, 3] are those of ``COLOR_KEYS`` as the picture shows them, in [0, 1], NaN where
    unknown; ``spoken`` [N, 6, 3] as the text says.
    """

    pixels: Tensor
    tokens: Tensor
    true: Tensor
    codes: Tensor
    forbidden: Tensor
    seed: Tensor
    excused: Tensor
    unlikely: Tensor
    colors: Tensor
    spoken: Tensor


class PairSource(Protocol):
    """Gives batches of pictures and texts whose truth is known."""

    def batch(self, share: Share) -> PairBatch:
        """This process's rows of a batch."""
        ...

    def close(self) -> None:
        """Let go of workers and files."""
        ...


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Token ids int64 [N, L], padded to the longest text (at most the context)."""
    found = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    ids: Tensor = found["input_ids"]
    return ids


def shifted(pixels: Tensor, reach: int, draw: torch.Generator, groups: int = 16) -> Tensor:
    """Pictures uint8 [B, 3, H, W] moved by up to ``reach`` pixels, edges repeated.

    Neighbours in the batch move together in ``groups`` groups, which costs one pad and a few
    copies instead of one for each picture.
    """
    if reach == 0:
        return pixels
    height, width = pixels.shape[2:]
    padded = F.pad(pixels.float(), (reach,) * 4, mode="replicate").to(torch.uint8)
    moved = []
    for part in padded.chunk(groups):
        top, left = torch.randint(0, 2 * reach + 1, (2,), generator=draw).tolist()
        moved.append(part[:, :, top : top + height, left : left + width])
    return torch.cat(moved)


def person_of(coded: NDArray[np.uint8]) -> Portrait:
    """A portrait's attributes from its codes [13] in a pool; the geometry is left out."""
    return Portrait(
        {
            key: None if code == ABSENT else VALUES[key][code]
            for key, code in zip(KEYS, coded.tolist(), strict=True)
        },
        {},
    )


def renamed(person: Portrait, coded: NDArray[np.int16]) -> Portrait:
    """A portrait with the names [K] its colours have now; those that are unsure (-1) stay."""
    attributes = dict(person.attributes)
    for key, column in zip(COLOR_KEYS, COLOR_COLUMNS, strict=True):
        if coded[column] >= 0:
            attributes[key] = VALUES[key][coded[column]]
    return Portrait(attributes, person.geometry)


def speakable(coded: NDArray[np.int16]) -> tuple[str, ...]:
    """What a caption may speak of: shapes, and colours with a sure name."""
    return tuple(k for k, code in zip(KEYS, coded, strict=True) if k in SHAPE_KEYS or code >= 0)


def palette_colors(coded: NDArray[np.int16]) -> Tensor:
    """Colours [n, 6, 3] in [0, 1] of ``COLOR_KEYS``, NaN where unseen, from codes [n, K]."""
    found = np.full((len(coded), len(COLOR_KEYS), 3), np.nan, np.float32)
    for place, (key, column) in enumerate(zip(COLOR_KEYS, COLOR_COLUMNS, strict=True)):
        table = np.array([PALETTES[key][value] for value in VALUES[key]], np.float32) / 255
        seen = coded[:, column] >= 0
        found[seen, place] = table[coded[seen, column]]
    return torch.from_numpy(found)


def spoken_colors(texts: Sequence[Caption]) -> Tensor:
    """Colours [n, 6, 3] in [0, 1] of ``COLOR_KEYS`` that texts name, NaN where they name none."""
    found = np.full((len(texts), len(COLOR_KEYS), 3), np.nan, np.float32)
    for row, said in enumerate(texts):
        for claim in said.claims:
            if claim.key in COLOR_KEYS and len(claim.allowed) == 1:
                color = PALETTES[claim.key][next(iter(claim.allowed))]
                found[row, COLOR_KEYS.index(claim.key)] = np.array(color, np.float32) / 255
    return torch.from_numpy(found)


class WorldPairs:
    """Drawn portraits with one true caption and one near miss each.

    Portraits whose shirt shows a word that is kept from training are replaced by their
    neighbours, and no near miss uses such a word.
    """

    def __init__(
        self, around: Surroundings, settings: Any, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.style: CaptionStyle = STYLES[settings.style]
        self.pool = Pool.open(
            around.pools, seed=0, split="train", size=128, count=settings.pictures
        )

    def batch(self, share: Share) -> PairBatch:
        """This process's rows of a batch."""
        pixels, people = self._people(share)
        rng = np.random.default_rng([share.number("captions") & 0xFFFFFFFF, share.rank])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = shifted(images, self.settings.shift, share.generator("shift"))
        images, recolored = self._recolored(images, share)
        coded = codes(people)
        colors = palette_colors(coded)
        if recolored.any():  # colours change as pixels do
            swatches = recolor(colors.mT[..., None], share, self.settings.recolored, vivid=True)[0]
            colors = swatches[..., 0].mT.contiguous()
        shown = named(coded, colors, recolored, excuse=self.settings.excuse)
        people = [
            renamed(person, code) if other else person
            for person, code, other in zip(people, shown.codes, recolored.tolist(), strict=True)
        ]
        own = [
            self._caption(person, rng, speakable(code) if other else KEYS)
            for person, code, other in zip(people, shown.codes, recolored.tolist(), strict=True)
        ]
        near = round(self.settings.near_share * len(people))
        told = list(zip(own, people, strict=True))[:near]
        missed = [self._near_miss(said, person, rng) for said, person in told]
        texts = [*own, *missed]
        table = ClaimTable.of(texts)
        true, unsure = judged(shown, table.forbidden)
        return PairBatch(
            pixels=images,
            tokens=tokenise(self.tokenizer, [said.text for said in texts]),
            true=torch.from_numpy(true),
            codes=torch.from_numpy(shown.codes.astype(np.int64)),
            forbidden=torch.from_numpy(table.forbidden).float(),
            seed=torch.tensor(share.number("noise")),
            excused=torch.from_numpy(unsure),
            unlikely=torch.from_numpy(shown.excused[:, value_columns()]),
            colors=colors,
            spoken=spoken_colors(texts),
        )

    def close(self) -> None:
        """End the drawing workers."""
        self.pool.close()

    def _people(self, share: Share) -> tuple[NDArray[np.uint8], list[Portrait]]:
        """Pictures [B, H, W, 3] and their portraits (attributes alone), in this process's share."""
        rows = self.pool.rows(share.seed, share.position, share.size, share.rows, repeats=REPEATS)
        drawn = self.pool.take(rows)
        hidden = np.isin(drawn.codes[:, KEYS.index("sign")], UNSEEN_CODES)
        if hidden.any():  # show another picture of this share in the place of a kept word
            shown = np.flatnonzero(~hidden)
            order = np.arange(len(rows))
            order[hidden] = shown[np.arange(int(hidden.sum())) % len(shown)]
            return drawn.pixels[order], [person_of(drawn.codes[i]) for i in order]
        return drawn.pixels, [person_of(code) for code in drawn.codes]

    def _recolored(self, images: Tensor, share: Share) -> tuple[Tensor, NDArray[np.bool_]]:
        """Pictures uint8, some in other colours, and which."""
        if self.settings.recolored == 0:
            return images, np.zeros(len(images), np.bool_)
        part = self.settings.recolored
        changed, rows = recolor(images.float().div(255), share, part, vivid=True)
        return (changed * 255).round().to(torch.uint8), rows.numpy()

    def _caption(
        self, person: Portrait, rng: np.random.Generator, about: tuple[str, ...]
    ) -> Caption:
        for key, part in self.settings.focus.items():
            shown = person.attributes[key] not in (None, "none")
            if shown and key in about and rng.random() < part:
                others = [other for other in about if other != key]
                about = (key, *rng.choice(others, 2, replace=False).tolist())
        return caption(person, rng, style=self.style, negation=0.15, about=about)

    def _beyond(self, said: Caption) -> bool:
        """Whether a text speaks of what no picture shows together, so is never anybody's own."""
        return self.settings.excuse and never_shown(said)

    def _near_miss(self, said: Caption, person: Portrait, rng: np.random.Generator) -> Caption:
        for _ in range(4):
            miss = edited(said, person, rng)
            if miss is not None and not _speaks_unseen(miss) and not self._beyond(miss):
                return miss
        return said


def _speaks_unseen(said: Caption) -> bool:
    return any(
        claim.key == "sign" and not claim.allowed.isdisjoint(UNSEEN_WORDS) for claim in said.claims
    )
