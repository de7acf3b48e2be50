"""How good a diffusion model of portraits is, and what each way to steer it brings and costs.

The reader and the judge CLIP judge; nothing was optimised against either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.objective import Objective
from guided.core.protocols import Scorer
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion.portrait import CFG
from guided.guidance.denoise import Denoising
from guided.guidance.denoise_estimates import Decode, LatentScorer
from guided.guidance.denoise_levels import Level
from guided.guidance.denoiser import Condition, Denoiser, Prediction
from guided.guidance.guided_denoiser import Guidance, GuidedDenoiser, Jacobian, guided
from guided.losses.clip import Clip
from guided.worlds.portraits import draw, sample
from guided.worlds.portraits.judging.reader import Reader, accuracy
from guided.worlds.portraits.judging.text_image_figures import (
    SAMPLES,
    Make,
    MetricRow,
    PromptSet,
    attribute_accuracy,
    unseen,
)
from guided.worlds.portraits.splits import Split

#: World seeds of portraits that are redrawn, and how far seeds of another draw are.
REDRAWN, OTHER_DRAW = 8_700_000, 50_000
ROWS = 8

Redraw = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GuidanceVariant:
    """A gradient path: where the gradient is taken, and how the scorer sees."""

    jacobian: Jacobian
    decode: Decode

    def __str__(self) -> str:
        return f"{self.jacobian}, {self.decode}"


#: The way every other one is compared with: through the model and the full decoder.
EXACT = GuidanceVariant("exact", "vae")


def variants(*, latent: bool = True) -> list[GuidanceVariant]:
    """Every gradient path there is, the exact one first."""
    seen: list[Decode] = ["vae", "tiny", "preview"]
    if latent:
        seen.append("latent")
    every = [GuidanceVariant(jacobian, decode) for jacobian in ("exact", "stop") for decode in seen]
    return sorted(every, key=lambda variant: variant != EXACT)


@dataclass(frozen=True)
class Sampler:
    """Pictures of texts by one model, with or without guidance."""

    model: Diffusion
    steps: int = 20
    cfg: float = CFG
    guidance: Guidance | None = None

    def latents(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Clean latents [n, C, h, w] of texts, a seed each."""
        return torch.cat(
            [
                drain(self.run(texts[first : first + ROWS], seeds[first : first + ROWS]).steps())
                for first in range(0, len(texts), ROWS)
            ]
        )

    def run(self, texts: Sequence[str], seeds: Sequence[int]) -> Denoising:
        """The loop for some texts."""
        own, words = Seeds(tuple(seeds)), tuple(texts)
        guide = replace(self.guidance, prompts=words) if self.guidance else None
        return Denoising(
            self.model.bound(words, cfg=self.cfg), self.model.scheduler(),
            self.model.start(own)["noise"], own, self.steps, self.cfg, guide,
        )  # fmt: skip

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Pictures [n, 3, H, W] in [0, 1], float32 on the CPU."""
        latents = self.latents(texts, seeds)
        with torch.no_grad():
            parts = [self.model.render({"x0": part}) for part in torch.split(latents, ROWS)]
        return torch.cat(parts).float().cpu()


def guide(
    variant: GuidanceVariant, scorer: Scorer, latent: LatentScorer | None = None, **more: Any
) -> Guidance:
    """Guidance to each row's own prompt by a way; ``more`` are further keys of it."""
    return Guidance(
        objective=Objective.of(Clip()), scorer=scorer,
        jacobian=variant.jacobian, decode=variant.decode,
        latent_scorer=latent if variant.decode == "latent" else None, **more,
    )  # fmt: skip


# --------------------------------------------------------------------------- the autoencoder


@torch.no_grad()
def redrawn_figures(
    redraw: Redraw, reader: Reader, split: Split, count: int = 1000, size: int = 128
) -> dict[str, MetricRow]:
    """What the reader still names in redrawn portraits, by attribute, where it can be seen.

    ``kept`` (mean), ``kept_worst`` and ``kept_KEY``; floor: always the most frequent value;
    ceiling: the portraits themselves.  ``l1`` is the mean absolute difference, of colours in
    [0, 1]; floor: the mean portrait.
    """
    people = [sample(REDRAWN + i, split) for i in range(count)]
    truth = to_tensor([draw(person, size) for person in people])
    shown = torch.cat([redraw(part).float().cpu() for part in torch.split(truth, ROWS)])
    found, best = accuracy(reader, people, shown), accuracy(reader, people, truth)
    rows = {f"kept_{key}": MetricRow(each.value, each.floor, best[key].value)
            for key, each in found.items()}  # fmt: skip
    worst = min(rows, key=lambda name: rows[name].value)
    mean = MetricRow(*(float(np.mean([getattr(row, part) for row in rows.values()]))
                 for part in ("value", "floor", "ceiling")))  # fmt: skip
    middle = float((truth - truth.mean(0)).abs().mean())
    apart = MetricRow(float((shown - truth).abs().mean()), middle, 0.0)
    return {"kept": mean, "kept_worst": rows[worst], **rows, "l1": apart}


# --------------------------------------------------------------------------- guidance


def mended(
    plain: Sampler, guided: Sampler, reader: Reader, split: Split, count: int, size: int = 128
) -> dict[str, MetricRow]:
    """What guidance does for captions that the unguided model gets wrong.

    ``wrong`` is the share of captions with something wrong; ``mended`` the accuracy on the
    attributes of those captions once guided, with the same seeds.  Its floor is another unguided
    draw of the same captions (a second try alone mends some), its ceiling the portraits themselves.
    """
    asked = PromptSet.of(split, count, size=size)
    texts, seeds = [said.text for said in asked.said], range(SAMPLES, SAMPLES + count)
    readings = reader.read(plain(texts, seeds))
    bad = [
        row
        for row, (reading, said) in enumerate(zip(readings, asked.said, strict=True))
        if any(
            reading.attributes[claim.key] not in claim.allowed
            for claim in said.claims
            if not unseen(claim)
        )
    ]
    share = MetricRow(len(bad) / count, 1.0, 0.0)
    if not bad:
        return {"wrong": share}
    said, words = [asked.said[row] for row in bad], [texts[row] for row in bad]
    own = [SAMPLES + row for row in bad]
    values = [
        attribute_accuracy(reader.read(images), said).mean
        for images in (
            guided(words, own), plain(words, [seed + OTHER_DRAW for seed in own]), asked.images[bad]
        )
    ]  # fmt: skip
    before = attribute_accuracy([readings[row] for row in bad], said).mean
    return {
        "wrong": share,
        "mended_before": MetricRow(before, 0.0, values[2]),
        "mended": MetricRow(values[0], values[1], values[2]),
    }


class Probe:
    """A denoiser that takes every way's gradient where the exact one guides, and follows none.

    ``found`` maps each way to the cosines [rows] of its shift of x0 with the exact one's, a list a
    step.
    """

    def __init__(
        self, denoiser: Denoiser, guides: Mapping[GuidanceVariant, GuidedDenoiser]
    ) -> None:
        self.denoiser, self.guides = denoiser, guides
        self.found: dict[GuidanceVariant, list[Tensor]] = {variant: [] for variant in guides}

    def predict(self, x_t: Tensor, level: Level, condition: Condition) -> Prediction:
        """The prediction without guidance."""
        if self.guides[EXACT].guides(level):
            shifts = {
                variant: each.shift(x_t, level, condition)[1].flatten(1).float()
                for variant, each in self.guides.items()
            }
            for variant, shift in shifts.items():
                cosine = torch.cosine_similarity(shift, shifts[EXACT], dim=1)
                self.found[variant].append(cosine.cpu())
        return self.denoiser.predict(x_t, level, condition)


def cosines(
    sampler: Sampler,
    guides: dict[GuidanceVariant, Guidance],
    texts: Sequence[str],
    seeds: Sequence[int],
) -> dict[GuidanceVariant, float]:
    """The mean cosine of each way's gradient with the exact one's, along unguided runs."""
    totals: dict[GuidanceVariant, list[Tensor]] = {}
    for first in range(0, len(texts), ROWS):
        words, own = tuple(texts[first : first + ROWS]), tuple(seeds[first : first + ROWS])
        loop = replace(sampler, guidance=None).run(words, own)
        steered = {
            variant: guided(loop.denoiser, replace(each, prompts=words), loop.levels, loop.seeds)
            for variant, each in guides.items()
        }
        probe = loop.denoiser = Probe(loop.denoiser, steered)
        drain(loop.steps())
        for variant, found in probe.found.items():
            totals.setdefault(variant, []).extend(found)
    return {variant: float(torch.cat(found).mean()) for variant, found in totals.items()}


@dataclass(frozen=True)
class VariantFigures:
    """What a gradient path brings and costs.

    ``gain``: the judge CLIP's mean cosine to the caption (in its own words) over the unguided
    pictures'; ``error`` is the standard error of that.  ``accuracy``: mentioned attributes that the
    reader names.  ``cost``: CPU time of a picture over an unguided one's.  ``cosine``: of its
    gradient with the exact one's.
    """

    gain: float
    error: float
    accuracy: float
    cost: float
    cosine: float


def variants_table(
    sampler: Sampler, guides: dict[GuidanceVariant, Guidance], reader: Reader, judge: Scorer,
    split: Split, count: int, size: int = 128,
) -> tuple[VariantFigures, dict[GuidanceVariant, VariantFigures]]:  # fmt: skip
    """The figures of the unguided model, and of every way with the same captions and seeds."""
    asked = PromptSet.of(split, count, size=size)
    texts, seeds = [said.text for said in asked.said], range(SAMPLES, SAMPLES + count)
    wanted = judge.embed_texts([told.text for told in asked.retold]).float().cpu()

    def measured(make: Make) -> tuple[Tensor, float, float]:
        make(texts[:1], seeds[:1])
        begun = time.process_time()
        images = make(texts, seeds)
        spent = (time.process_time() - begun) / count
        with torch.no_grad():
            seen = torch.cat([judge.embed_images(p).float().cpu() for p in torch.split(images, 64)])
        return (
            (seen * wanted).sum(1),
            attribute_accuracy(reader.read(images), asked.said).mean,
            spent,
        )

    base, right, unit = measured(sampler)
    apart = cosines(sampler, guides, texts, seeds)
    table = {}
    for variant, each in guides.items():
        scores, accurate, spent = measured(replace(sampler, guidance=each))
        gain = scores - base
        table[variant] = VariantFigures(
            float(gain.mean()),
            float(gain.std() / count**0.5),
            accurate,
            spent / unit,
            apart[variant],
        )
    return VariantFigures(0.0, 0.0, right, 1.0, 0.0), table
