"""Retrieval of a CLIP in training on a user's own images: R@1, R@5, R@10 against chance."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guided.training.captioned_images import Entry
from guided.training.clip_bundle import embed_pixels, embed_texts
from guided.training.folder_pairs import FolderPairs
from guided.training.objective import Metric

log = logging.getLogger(__name__)

#: Of how many best answers one must be right.
RANKS = (1, 5, 10)


@torch.no_grad()
def retrieval(
    clip: Any, tokenizer: PreTrainedTokenizerFast, pixels: Tensor, captions: Sequence[Sequence[str]]
) -> dict[str, Metric]:
    """Recall both ways among images uint8 [N, 3, S, S] and their first captions.

    ``recall_text_at_K``: an image finds one of its captions among the K most similar texts;
    ``recall_image_at_K``: a text finds one of its images.  Equal texts count once and are true of
    all their images.  The floor is the mean chance of a random order; ranks that half of all
    answers reach are left out but for the first.
    """
    texts = list(dict.fromkeys(each[0] for each in captions))
    true = torch.tensor([[text in set(each) for text in texts] for each in captions])
    cosines = (embed_pixels(clip, pixels) @ embed_texts(clip, tokenizer, texts).T).cpu()
    sides = {"text": (cosines, true), "image": (cosines.T, true.T)}
    return {
        f"recall_{side}_at_{rank}": Metric(recall(scores, right, rank), chance(right, rank), 1.0)
        for side, (scores, right) in sides.items()
        for rank in RANKS
        if rank == 1 or 2 * rank < right.shape[1]
    }


def recall(scores: Tensor, true: Tensor, rank: int) -> float:
    """The share of rows with a true answer among the ``rank`` highest of scores [N, M]; a tie with
    a wrong answer counts as lost.
    """
    best = scores.masked_fill(~true, -math.inf).amax(1, keepdim=True)
    ahead = ((scores >= best) & ~true).sum(1)
    return float((ahead < rank).float().mean())


def chance(true: Tensor, rank: int) -> float:
    """The mean chance that a random order has one of a row's true answers [N, M] among the first.

    1 - C(M - p, rank) / C(M, rank) for p true answers.
    """
    answers = true.shape[1]
    rank = min(rank, answers)
    whole = math.comb(answers, rank)
    missed = [math.comb(answers - int(p), rank) / whole for p in true.sum(1)]
    return 1 - sum(missed) / len(missed)


def at_chance(metrics: Mapping[str, Metric], count: int) -> bool:
    """Whether recall of ``count`` rows is, either way, within two deviations of guessing."""
    return not all(
        metric.value - metric.floor > 2 * math.sqrt(metric.floor * (1 - metric.floor) / count)
        for metric in (_widest(metrics, "text"), _widest(metrics, "image"))
        if metric.floor is not None
    )


def _widest(metrics: Mapping[str, Metric], side: str) -> Metric:
    """The recall at the highest rank that was measured."""
    ranks = [f"recall_{side}_at_{rank}" for rank in RANKS]
    return metrics[[name for name in ranks if name in metrics][-1]]


def in_words(metrics: Mapping[str, Metric]) -> str:
    """Recall both ways beside chance, on one line."""
    parts = []
    for side, title in (("text", "image to text"), ("image", "text to image")):
        measured = [(rank, metrics.get(f"recall_{side}_at_{rank}")) for rank in RANKS]
        texts = [f"R@{rank} {m.value:.3f} (chance {m.floor:.3f})" for rank, m in measured if m]
        parts.append(f"{title} {', '.join(texts)}")
    return "; ".join(parts)


class FolderRetrieval:
    """How a CLIP in training finds held-out images and captions, and as many of its own."""

    def __init__(self, pairs: FolderPairs, tokenizer: PreTrainedTokenizerFast) -> None:
        self.pairs, self.tokenizer, self.held = pairs, tokenizer, pairs.held

    @cached_property
    def own(self) -> list[Entry]:
        """Images that were trained on, as many as are held out (or 100), spread over the folder."""
        count = min(len(self.held) or 100, len(self.pairs.entries))
        step = len(self.pairs.entries) / count
        return [self.pairs.entries[int(i * step)] for i in range(count)]

    def measure(self, clip: Any) -> dict[str, Metric]:
        """Recall on held-out images and, named ``trained_...``, on images trained on."""
        held = self._retrieval(clip, self.held) if self.held else {}
        own = self._retrieval(clip, self.own)
        return {**held, **{f"trained_{name}": metric for name, metric in own.items()}}

    def verdict(self, metrics: Mapping[str, Metric]) -> str:
        """The figures in words, and whether they are better than guessing."""
        own = {k.removeprefix("trained_"): m for k, m in metrics.items() if k.startswith("trained")}
        text = f"On {len(self.own)} images trained on: {in_words(own)}."
        if not self.held:
            return f"Nothing was held out, so whether it knows new images was not measured. {text}"
        text = f"On {len(self.held)} held-out images: {in_words(metrics)}. {text}"
        if at_chance(metrics, len(self.held)):
            warning = (
                "AT CHANCE: held-out images and captions find each other no better than by "
                "guessing. It needs more images or a longer training."
            )
            log.warning("%s", warning)
            text = f"{warning} {text}"
        return text

    def _retrieval(self, clip: Any, entries: Sequence[Entry]) -> dict[str, Metric]:
        pixels = self.pairs.squares(entries)
        return retrieval(clip, self.tokenizer, pixels, [e.captions for e in entries])
