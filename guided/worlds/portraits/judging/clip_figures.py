"""How well a CLIP knows the drawn world: retrieval, zero-shot, near misses, denials, words.

Every figure is measured on portraits that no training saw: a thousand new ones (``val``) and a
thousand that show a pair of values that training never showed (``test``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.protocols import Scorer
from guided.judging.retrieval import (
    Rate,
    ZeroShot,
    ZeroShotTable,
    both_ways,
    near_misses,
    rate,
    wrong_preferences,
    zero_shot,
)
from guided.worlds.portraits import KEYS, SIGN_WORDS, UNSEEN_WORDS, VALUES, Portrait, draw, sample
from guided.worlds.portraits.grammar.captions import (
    Caption,
    caption,
    captions,
    edited,
    edited_many,
    value_prompts,
)
from guided.worlds.portraits.grammar.claims import claims_matrix
from guided.worlds.portraits.grammar.frames import STYLES, TRAIN, CaptionStyle
from guided.worlds.portraits.grammar.free_words import FREE_PARAPHRASES, FREE_PROMPTS
from guided.worlds.portraits.grammar.paraphrases import PARAPHRASES, Paraphrase
from guided.worlds.portraits.splits import Split

MISSES = 99
ROWS = 128


@dataclass(frozen=True)
class Figure:
    """A measured share with its interval, what guessing gets, and the best possible."""

    rate: Rate
    floor: float
    ceiling: float = 1.0


Embed = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Gallery:
    """Portraits of one split with their unit embeddings [N, D]."""

    people: list[Portrait]
    seen: Tensor

    @classmethod
    def of(cls, scorer: Scorer, split: Split, count: int = 1000, first: int = 0) -> Gallery:
        """Draw and embed ``count`` portraits of a split."""
        people = [sample(first + i, split) for i in range(count)]
        found = []
        with torch.no_grad():
            for start in range(0, count, ROWS):
                images = to_tensor([draw(person, 128) for person in people[start : start + ROWS]])
                found.append(scorer.embed_images(images).float().cpu())
        return cls(people, torch.cat(found))


def figures(
    scorer: Scorer, split: Split, style: str = "train", count: int = 1000
) -> dict[str, Figure]:
    """Every figure of a CLIP on one split, by name; the style is that of its captions.

    In everyday words (``free_``) only a CLIP of the style "train" is asked.
    """
    gallery = Gallery.of(scorer, split, count)
    words = STYLES[style]

    def embed(texts: Sequence[str]) -> Tensor:
        return scorer.embed_texts(list(texts)).float().cpu()

    found = _recall(gallery, embed, words)
    found |= _zero_shot(gallery, embed, words)
    found |= _near(gallery, embed, words)
    found |= _wrong(gallery, embed, words)
    found |= _denials(gallery, embed, words)
    found["paraphrases"] = paraphrased(gallery, embed, PARAPHRASES)
    if words is TRAIN:
        found |= free_zero_shot(gallery, embed)
        found["free_paraphrases"] = paraphrased(gallery, embed, FREE_PARAPHRASES)
    return found


def _recall(gallery: Gallery, embed: Embed, style: CaptionStyle) -> dict[str, Figure]:
    """Recall at 1 both ways among captions that mention everything visible, all distinct."""
    rng = np.random.default_rng(1)
    texts: dict[str, None] = {}
    for person in gallery.people:
        before = len(texts)
        while len(texts) == before:
            texts[captions(person, rng, 1, style=style)[0].text] = None
    found = both_ways(gallery.seen, embed(list(texts)))
    floor = 1 / len(gallery.people)
    return {f"recall_{way}": Figure(found[way].recall[1], floor) for way in found}


def classifier(
    embed: Embed, key: str, values: Sequence[str], style: CaptionStyle, prompts: int | None = None
) -> Tensor:
    """Zero-shot weights [C, D]: the mean embedding of each value's prompts, unit length.

    With ``prompts`` only so many of the first ones are used.
    """
    return _ensemble(embed, [value_prompts(key, value, style)[:prompts] for value in values])


def _ensemble(embed: Embed, prompts: Sequence[Sequence[str]]) -> Tensor:
    """Zero-shot weights [C, D] of each class's prompts."""
    rows = [F.normalize(embed(texts), dim=1).mean(0) for texts in prompts]
    return F.normalize(torch.stack(rows), dim=1)


def _classified(gallery: Gallery, key: str, values: Sequence[str], *weights: Tensor) -> list[
    ZeroShot
]:  # fmt: skip
    """The zero-shot result of each set of weights, on portraits that show one of the values."""
    shown = [
        i
        for i, person in enumerate(gallery.people)
        if person.visible()[key] and person.attributes[key] in values
    ]
    truth = torch.tensor([values.index(str(gallery.people[i].attributes[key])) for i in shown])
    return [zero_shot(gallery.seen[shown] @ each.T, truth, values) for each in weights]


def _mean_over_keys(rows: dict[str, ZeroShot]) -> Figure:
    """The mean accuracy over attributes; its interval reaches from the worst of them."""
    table = ZeroShotTable(rows)
    floor = float(np.mean([1 / len(row.labels) for row in rows.values()]))
    return Figure(Rate(table.mean, len(rows), table.worst[1], 1.0), floor)


def _zero_shot(gallery: Gallery, embed: Embed, style: CaptionStyle) -> dict[str, Figure]:
    """Zero-shot accuracy of every visible attribute; the words on shirts apart.

    ``zero_shot_one_prompt`` is the mean with the first prompt alone in the place of all of them.
    """
    rows, found, single = {}, {}, {}
    seen_words = [word for word in SIGN_WORDS if word not in UNSEEN_WORDS]
    tasks = {key: VALUES[key] for key in KEYS if key != "sign"}
    tasks |= {"sign_seen": tuple(seen_words), "sign_unseen": UNSEEN_WORDS}
    for name, values in tasks.items():
        key = name.partition("_")[0] if name.startswith("sign") else name
        weights = classifier(embed, key, values, style)
        if name.startswith("sign"):
            (result,) = _classified(gallery, key, values, weights)
        else:
            one = classifier(embed, key, values, style, prompts=1)
            result, single[name] = _classified(gallery, key, values, weights, one)
            rows[name] = result
        found[f"zero_shot_{name}"] = Figure(result.accuracy, 1 / len(values))
    found["zero_shot_mean"] = _mean_over_keys(rows)
    found["zero_shot_one_prompt"] = _mean_over_keys(single)
    worst = ZeroShotTable(rows).worst[0]
    found["zero_shot_worst"] = Figure(rows[worst].accuracy, 1 / len(VALUES[worst]))
    return found


def free_zero_shot(gallery: Gallery, embed: Embed) -> dict[str, Figure]:
    """Zero-shot accuracy by prompts in everyday words, of every visible attribute but signs."""
    rows, found = {}, {}
    for key, prompts in FREE_PROMPTS.items():
        weights = _ensemble(embed, list(prompts.values()))
        (rows[key],) = _classified(gallery, key, tuple(prompts), weights)
        found[f"free_zero_shot_{key}"] = Figure(rows[key].accuracy, 1 / len(prompts))
    return {**found, "free_zero_shot_mean": _mean_over_keys(rows)}


def _near(gallery: Gallery, embed: Embed, style: CaptionStyle) -> dict[str, Figure]:
    """Recall at 1 of the true caption among 99 that differ in one or two mentioned attributes."""
    rng = np.random.default_rng(2)
    rows, hits = [], []
    for index, person in enumerate(gallery.people):
        true = captions(person, rng, 1, style=style)[0]
        misses = edited_many(true, person, rng, MISSES)
        if len(misses) == MISSES:
            hits.append(embed([true.text, *(miss.text for miss in misses)]))
            rows.append(index)
    return {
        "near_miss": Figure(near_misses(gallery.seen[rows], torch.stack(hits)), 1 / (MISSES + 1))
    }


def _pairs(
    gallery: Gallery, embed: Embed, pairs: Sequence[tuple[int, Caption, Caption]]
) -> tuple[Tensor, Tensor]:
    """Scores [n] of true and of false captions of portraits."""
    rows = [index for index, _, _ in pairs]
    true = embed([said.text for _, said, _ in pairs])
    false = embed([miss.text for _, _, miss in pairs])
    return (gallery.seen[rows] * true).sum(1), (gallery.seen[rows] * false).sum(1)


def _wrong(gallery: Gallery, embed: Embed, style: CaptionStyle) -> dict[str, Figure]:
    """How often a caption with one changed attribute is preferred, by attribute and on average."""
    rng = np.random.default_rng(3)
    by_key: dict[str, list[tuple[int, Caption, Caption]]] = {key: [] for key in KEYS}
    for index, person in enumerate(gallery.people):
        for _ in range(3):
            said = caption(person, rng, style=style, count=1 + int(rng.integers(6)))
            miss = edited(said, person, rng)
            if miss is not None:
                by_key[_changed(said, miss)].append((index, said, miss))
    found = {}
    for key, pairs in by_key.items():
        if pairs:
            found[f"wrong_{key}"] = Figure(
                wrong_preferences(*_pairs(gallery, embed, pairs)), 0.5, 0
            )
    mean = float(np.mean([figure.rate.value for figure in found.values()]))
    worst = max(figure.rate.value for figure in found.values())
    total = sum(figure.rate.count for figure in found.values())
    return {**found, "wrong_mean": Figure(Rate(mean, total, 0.0, worst), 0.5, 0)}


def _changed(said: Caption, miss: Caption) -> str:
    """The key whose claim differs between a caption and its near miss."""
    before = {claim.key: claim.allowed for claim in said.claims}
    return next(c.key for c in miss.claims if before.get(c.key) != c.allowed)


def _denials(gallery: Gallery, embed: Embed, style: CaptionStyle) -> dict[str, Figure]:
    """How often the truth wins between "without glasses" and glasses of any kind, and so on."""
    hits = []
    for key in ("glasses", "hat", "beard", "earrings"):
        kinds = [value for value in VALUES[key] if value != "none"]
        present = (gallery.seen @ classifier(embed, key, kinds, style).T).amax(1)
        denied = (gallery.seen @ classifier(embed, key, ["none"], style).T)[:, 0]
        absent = torch.tensor([person.attributes[key] == "none" for person in gallery.people])
        hits.append(torch.where(absent, denied > present, present > denied).double())
    return {"denial": Figure(rate(torch.cat(hits)), 0.5)}


def paraphrased(gallery: Gallery, embed: Embed, texts: Sequence[Paraphrase]) -> Figure:
    """How often a true picture scores above a false one for texts in words of their own."""
    true = torch.from_numpy(claims_matrix(texts, gallery.people))
    scores = gallery.seen @ embed([said.text for said in texts]).T
    wins = []
    for column in range(len(texts)):
        hits, others = scores[true[:, column], column], scores[~true[:, column], column]
        if len(hits) and len(others):
            above = (hits[:, None] > others).double() + 0.5 * (hits[:, None] == others).double()
            wins.append(above.mean())
    return Figure(rate(torch.stack(wins)), 0.5)
