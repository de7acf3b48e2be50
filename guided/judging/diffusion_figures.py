"""How good a diffusion model of portraits is, and what each way to steer it brings and costs.

The reader and the judge CLIP judge; nothing was optimised against either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.objective import Objective
from guided.core.protocols import Scorer
from guided.core.run import drained
from guided.core.seeds import Seeds
from guided.generators.diffusion import CFG, Diffusion
from guided.guidance.denoise import Denoising, Guidance, Jacobian
from guided.guidance.denoise_levels import Level
from guided.guidance.denoise_views import Decode, LatentScorer
from guided.judging.reader import Reader, accuracy
from guided.judging.text_image_figures import SAMPLES, Asked, Make, Row, obedience, unseen
from guided.losses.clip import Clip
from guided.portraits import draw, sample
from guided.portraits.splits import Split

#: World seeds of portraits that are redrawn, and how far seeds of another draw are.
REDRAWN, OTHER_DRAW = 8_700_000, 50_000
ROWS = 8

Redraw = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """A gradient path: where the gradient is taken, and how the scorer sees."""

    jacobian: Jacobian
    decode: Decode

    def __str__(self) -> str:
        return f"{self.jacobian}, {self.decode}"


#: The way every other one is compared with: through the model and the full decoder.
EXACT = Way("exact", "vae")


def ways(*, latent: bool = True) -> list[Way]:
    """Every gradient path there is, the exact one first."""
    seen: list[Decode] = ["vae", "tiny", "preview"]
    if latent:
        seen.append("latent")
    every = [Way(jacobian, decode) for jacobian in ("exact", "stop") for decode in seen]
    return sorted(every, key=lambda way: way != EXACT)


@dataclass(frozen=True)
class Sampler:
    """Pictures of texts by one model, with or without guidance."""

    model: Diffusion
    steps: int = 20
    cfg: float = CFG["own"]
    guidance: Guidance | None = None

    def latents(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Clean latents [n, C, h, w] of texts, a seed each."""
        return torch.cat(
            [
                drained(self.run(texts[first : first + ROWS], seeds[first : first + ROWS]).steps())
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


def guide(way: Way, scorer: Scorer, latent: LatentScorer | None = None, **more: Any) -> Guidance:
    """Guidance to each row's own prompt by a way; ``more`` are further keys of it."""
    return Guidance(
        objective=Objective.of(Clip()), scorer=scorer, jacobian=way.jacobian, decode=way.decode,
        latent_scorer=latent if way.decode == "latent" else None, **more,
    )  # fmt: skip


# --------------------------------------------------------------------------- the autoencoder


@torch.no_grad()
def redrawn_figures(
    redraw: Redraw, reader: Reader, split: Split, count: int = 1000, size: int = 128
) -> dict[str, Row]:
    """What the reader still names in redrawn portraits, by attribute, where it can be seen.

    ``kept`` (mean), ``kept_worst`` and ``kept_KEY``; floor: always the most frequent value;
    ceiling: the portraits themselves.  ``l1`` is the mean absolute difference, of colours in
    [0, 1]; floor: the mean portrait.
    """
    people = [sample(REDRAWN + i, split) for i in range(count)]
    truth = to_tensor([draw(person, size) for person in people])
    shown = torch.cat([redraw(part).float().cpu() for part in torch.split(truth, ROWS)])
    found, best = accuracy(reader, people, shown), accuracy(reader, people, truth)
    rows = {f"kept_{key}": Row(each.value, each.floor, best[key].value)
            for key, each in found.items()}  # fmt: skip
    worst = min(rows, key=lambda name: rows[name].value)
    mean = Row(*(float(np.mean([getattr(row, part) for row in rows.values()]))
                 for part in ("value", "floor", "ceiling")))  # fmt: skip
    middle = float((truth - truth.mean(0)).abs().mean())
    apart = Row(float((shown - truth).abs().mean()), middle, 0.0)
    return {"kept": mean, "kept_worst": rows[worst], **rows, "l1": apart}


# --------------------------------------------------------------------------- guidance


def mended(
    plain: Sampler, guided: Sampler, reader: Reader, split: Split, count: int, size: int = 128
) -> dict[str, Row]:
    """What guidance does for captions that the unguided model gets wrong.

    ``wrong`` is the share of captions with something wrong; ``mended`` the accuracy on the
    attributes of those captions once guided, with the same seeds.  Its floor is another unguided
    draw of the same captions (a second try alone mends some), its ceiling the portraits themselves.
    """
    asked = Asked.of(split, count, size=size)
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
    share = Row(len(bad) / count, 1.0, 0.0)
    if not bad:
        return {"wrong": share}
    said, words = [asked.said[row] for row in bad], [texts[row] for row in bad]
    own = [SAMPLES + row for row in bad]
    values = [
        obedience(reader.read(images), said).mean
        for images in (
            guided(words, own), plain(words, [seed + OTHER_DRAW for seed in own]), asked.images[bad]
        )
    ]  # fmt: skip
    before = obedience([readings[row] for row in bad], said).mean
    return {
        "wrong": share,
        "mended_before": Row(before, 0.0, values[2]),
        "mended": Row(values[0], values[1], values[2]),
    }


class Probe(Denoising):
    """A loop that takes every way's gradient at its steps and follows none.

    ``found`` maps each way to the cosines [rows] of its shift of x0 with the exact one's, a list a
    step.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.every: dict[Way, Guidance] = {}
        self.found: dict[Way, list[Tensor]] = {}

    def _change(
        self, given: Tensor, clean: Tensor, level: Level, index: int, spread: Tensor | None,
        losses: dict[str, float],
    ) -> Tensor:  # fmt: skip
        kept, shifts = self.guidance, {}
        # The gradient through the model comes last of its kind: it lets go of the graph.
        for way, each in self.every.items():
            self.guidance, self._bound = each, None
            taken = given.detach().requires_grad_()
            seen = clean
            if way.jacobian == "exact":
                with torch.enable_grad():
                    output, _ = self._predict(taken, self.scheduler.timesteps[index])
                    seen = level.clean(taken, output)
            shifts[way] = super()._change(taken, seen, level, index, spread, {}).flatten(1)
        self.guidance = kept
        for way, shift in shifts.items():
            cosine = torch.cosine_similarity(shift.float(), shifts[EXACT].float(), dim=1)
            self.found.setdefault(way, []).append(cosine.cpu())
        return torch.zeros_like(clean)


def cosines(
    sampler: Sampler, guides: dict[Way, Guidance], texts: Sequence[str], seeds: Sequence[int]
) -> dict[Way, float]:
    """The mean cosine of each way's gradient with the exact one's, along unguided runs."""
    totals: dict[Way, list[Tensor]] = {}
    for first in range(0, len(texts), ROWS):
        words, own = tuple(texts[first : first + ROWS]), tuple(seeds[first : first + ROWS])
        begun = replace(guides[EXACT], prompts=words, jacobian="stop")
        loop = sampler.run(words, own)
        probe = Probe(
            loop.model, sampler.model.scheduler(), loop.noise, loop.seeds, sampler.steps,
            sampler.cfg, begun,
        )  # fmt: skip
        probe.every = {way: replace(each, prompts=words) for way, each in guides.items()}
        drained(probe.steps())
        for way, found in probe.found.items():
            totals.setdefault(way, []).extend(found)
    return {way: float(torch.cat(found).mean()) for way, found in totals.items()}


@dataclass(frozen=True)
class WayFigures:
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


def ways_table(
    sampler: Sampler, guides: dict[Way, Guidance], reader: Reader, judge: Scorer, split: Split,
    count: int, size: int = 128,
) -> tuple[WayFigures, dict[Way, WayFigures]]:  # fmt: skip
    """The figures of the unguided model, and of every way with the same captions and seeds."""
    asked = Asked.of(split, count, size=size)
    texts, seeds = [said.text for said in asked.said], range(SAMPLES, SAMPLES + count)
    wanted = judge.embed_texts([told.text for told in asked.retold]).float().cpu()

    def measured(make: Make) -> tuple[Tensor, float, float]:
        make(texts[:1], seeds[:1])
        begun = time.process_time()
        images = make(texts, seeds)
        spent = (time.process_time() - begun) / count
        with torch.no_grad():
            seen = torch.cat([judge.embed_images(p).float().cpu() for p in torch.split(images, 64)])
        return (seen * wanted).sum(1), obedience(reader.read(images), asked.said).mean, spent

    base, right, unit = measured(sampler)
    apart = cosines(sampler, guides, texts, seeds)
    table = {}
    for way, each in guides.items():
        scores, accurate, spent = measured(replace(sampler, guidance=each))
        gain = scores - base
        table[way] = WayFigures(
            float(gain.mean()), float(gain.std() / count**0.5), accurate, spent / unit, apart[way]
        )
    return WayFigures(0.0, 0.0, right, 1.0, 0.0), table
