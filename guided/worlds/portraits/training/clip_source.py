"""Batches of the drawn world for a CLIP: portraits, a true caption and a near miss of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guided.training.clip_bundle import tokenize
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits.attributes import KEYS, UNSEEN_WORDS, Portrait
from guided.worlds.portraits.grammar.captions import Caption, caption, edited
from guided.worlds.portraits.grammar.claims import ClaimTable, codes
from guided.worlds.portraits.grammar.frames import FREE, STYLES, CaptionStyle
from guided.worlds.portraits.training.clip_pairs import (
    UNSEEN_CODES,
    PairBatch,
    palette_colors,
    person_of,
    renamed,
    shifted,
    speakable,
    spoken_colors,
)
from guided.worlds.portraits.training.color_labels import judged, named
from guided.worlds.portraits.training.contrastive_monitor import FIRST_SEED
from guided.worlds.portraits.training.degradation import recolor
from guided.worlds.portraits.training.pairs import DrawnPairs
from guided.worlds.portraits.training.unseen_pairs import never_shown, value_columns

#: How often a window of the pool is gone through before the next one.
REPEATS = 2


class WorldPairs(DrawnPairs):
    """Drawn portraits with one true caption and one near miss each.

    Portraits whose shirt shows a word that is kept from training are replaced by their
    neighbours, and no near miss uses such a word.
    """

    def __init__(
        self, ctx: TrainingContext, settings: Any, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.style: CaptionStyle = STYLES[settings.style]
        super().__init__(ctx, 128, settings.pictures, REPEATS, FIRST_SEED)

    def batch(self, share: BatchContext) -> PairBatch:
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
        kept = None
        if self.settings.keep_texts:
            still = [caption(person, rng, style=self.style) for person in people[: len(own) // 2]]
            kept = tokenize(self.tokenizer, [said.text for said in still])
        table = ClaimTable.of(texts)
        true, unsure = judged(shown, table.forbidden)
        return PairBatch(
            pixels=images,
            tokens=tokenize(self.tokenizer, [said.text for said in texts]),
            true=torch.from_numpy(true),
            codes=torch.from_numpy(shown.codes.astype(np.int64)),
            forbidden=torch.from_numpy(table.forbidden).float(),
            seed=torch.tensor(share.number("noise")),
            excused=torch.from_numpy(unsure),
            unlikely=torch.from_numpy(shown.excused[:, value_columns()]),
            colors=colors,
            spoken=spoken_colors(texts),
            kept=kept,
        )

    def _people(self, share: BatchContext) -> tuple[NDArray[np.uint8], list[Portrait]]:
        """Pictures [B, H, W, 3] and their portraits (attributes alone), in this process's share."""
        rows = self.rows(share)[share.rows]
        drawn = self.pool.take(rows)
        hidden = np.isin(drawn.codes[:, KEYS.index("sign")], UNSEEN_CODES)
        if hidden.any():  # show another picture of this share in the place of a kept word
            shown = np.flatnonzero(~hidden)
            order = np.arange(len(rows))
            order[hidden] = shown[np.arange(int(hidden.sum())) % len(shown)]
            return drawn.pixels[order], [person_of(drawn.codes[i]) for i in order]
        return drawn.pixels, [person_of(code) for code in drawn.codes]

    def _recolored(self, images: Tensor, share: BatchContext) -> tuple[Tensor, NDArray[np.bool_]]:
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
        if self.settings.free and rng.random() < self.settings.free:
            few = 1 + int(5 * rng.random() ** 2)  # plain English is short
            return caption(person, rng, style=FREE, negation=0.15, about=about, count=few)
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
