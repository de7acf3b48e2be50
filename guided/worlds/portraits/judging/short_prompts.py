"""How well pictures made from short prompts show what these name: one, two or three attributes.

Prompts are captions of training's grammar or texts in everyday words; pictures are made as
``guided generate`` makes them with nothing else said.  The reader judges, never a CLIP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as counting
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.run import drain
from guided.judging.retrieval import Rate, rate
from guided.tasks import _generate_diffusion, _generate_gan, _generate_unclip
from guided.tasks._generate_options import Options
from guided.tasks.base import TaskContext
from guided.worlds.portraits import HELD_OUT_PAIRS, KEYS, Portrait, draw, held_out_pairs_of, sample
from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.grammar.claims import Claim, Claiming
from guided.worlds.portraits.grammar.free_words import FREE_PARAPHRASES
from guided.worlds.portraits.judging.reader import Reader, ReaderOutput
from guided.worlds.portraits.judging.text_image_figures import (
    CAPTIONS,
    OTHERS,
    SAMPLES,
    Make,
    adherence,
    unseen,
)

NUMBERS = (1, 2, 3)
METHODS = ("gan", "diffusion", "unclip")
_TRIES = 20


@dataclass(frozen=True)
class ShortPrompt:
    """A text, what it claims, and a portrait of which that is true."""

    text: str
    claims: tuple[Claim, ...]
    person: Portrait


def names_pair(said: Claiming) -> bool:
    """Whether both values of a pair that training never shows are named, and no others for them."""
    named = {claim.key: claim.allowed for claim in said.claims}
    return any(
        all(named.get(key) == frozenset({value}) for key, value in pair) for pair in HELD_OUT_PAIRS
    )


def caption_prompts(number: int, count: int, *, pairs: bool = False) -> list[ShortPrompt]:
    """``count`` captions of training's grammar that name exactly ``number`` attributes.

    They are of new portraits; with ``pairs`` of test portraits, and name a held-out pair.  Words
    on shirts that no training shows are left out.
    """
    stream = np.random.default_rng([CAPTIONS, number, pairs])
    found: list[ShortPrompt] = []
    for seed in counting(CAPTIONS):
        if len(found) == count:
            break
        person = sample(seed, "test" if pairs else "val")
        for _ in range(_TRIES):
            about: tuple[str, ...] = KEYS
            if pairs:
                (key, _), (other, _) = held_out_pairs_of(person.attributes)[0]
                about = (key, other, *stream.choice(KEYS, number - 2))
            said = caption(person, stream, count=number, about=about, negation=0.3)
            keys = {claim.key for claim in said.claims}
            if (
                len(keys) == number
                and not any(map(unseen, said.claims))
                and (names_pair(said) == pairs)
            ):
                found.append(ShortPrompt(said.text, said.claims, person))
                break
    return found


def free_prompts(number: int, count: int, *, pairs: bool = False) -> list[ShortPrompt]:
    """``count`` texts in everyday words with ``number`` claims, in a random order, then again.

    None where no text names a held-out pair (``pairs``).
    """
    fitting = (said for said in FREE_PARAPHRASES if len(said.claims) == number)
    texts = [said for said in fitting if names_pair(said) == pairs]
    order = np.random.default_rng([CAPTIONS, number]).permutation(len(texts))
    found = []
    for i in range(count if texts else 0):
        said = texts[order[i % len(texts)]]
        people = adherence(said.claims, CAPTIONS + 1000 * i, 8, "val")
        person = next(person for person in people if _tells_colors_apart(person))
        found.append(ShortPrompt(said.text, said.claims, person))
    return found


def _tells_colors_apart(person: Portrait) -> bool:
    """Whether hat and clothing differ, as they do in the world."""
    return person.attributes["hat_color"] != person.attributes["clothing"]


# ------------------------------------------------------------------ pictures


def _gan(options: Options, ctx: TaskContext) -> Any:
    return _generate_gan.open_job(options, ctx)


def _diffusion(options: Options, ctx: TaskContext) -> Any:
    return _generate_diffusion.DiffusionJob(options, ctx, ctx.models.of(options).denoiser)


def _unclip(options: Options, ctx: TaskContext) -> Any:
    return _generate_unclip.UnclipJob(options, ctx, ctx.models.of(options).unclip)


_JOBS: dict[str, Callable[[Options, TaskContext], Any]] = {
    "gan": _gan, "diffusion": _diffusion, "unclip": _unclip,
}  # fmt: skip


def default_maker(method: str, ctx: TaskContext) -> Make:
    """Pictures of texts as ``guided generate TEXT --method METHOD`` makes them, a seed each."""

    def make(texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        job = _JOBS[method](Options(prompts=list(texts), method=method), ctx)
        drain(job.made(list(zip(texts, seeds, strict=True))))
        return to_tensor([row["image"].image for row in job.results])

    return make


# ------------------------------------------------------------------ figures


@dataclass(frozen=True)
class ShortFigures:
    """Of pictures of prompts: the mean share of claims met, the share of prompts with all met, and
    the share met by attribute.
    """

    met: Rate
    whole: Rate
    by_key: dict[str, Rate]


def short_figures(readings: Sequence[ReaderOutput], prompts: Sequence[ShortPrompt]) -> ShortFigures:
    """The figures of one reading for each prompt; each prompt counts as one case.

    Raises:
        ValueError: not one reading for each prompt.
    """
    shares, by_key = [], dict[str, list[float]]()
    for reading, prompt in zip(readings, prompts, strict=True):
        hits = [float(reading.attributes[c.key] in c.allowed) for c in prompt.claims]
        shares.append(sum(hits) / len(hits))
        for claim, hit in zip(prompt.claims, hits, strict=True):
            by_key.setdefault(claim.key, []).append(hit)
    met = torch.tensor(shares).double()
    return ShortFigures(
        rate(met), rate((met == 1).double()),
        {key: rate(torch.tensor(by_key[key])) for key in KEYS if key in by_key},
    )  # fmt: skip


@dataclass(frozen=True)
class ShortRow:
    """The figures of a generator between those of random portraits and of the renderer's."""

    made: ShortFigures
    floor: ShortFigures
    ceiling: ShortFigures


def short_row(
    make: Make, reader: Reader, prompts: Sequence[ShortPrompt], size: int = 128
) -> ShortRow:
    """Make a picture of every prompt and read it, a random portrait, and one that it is true of."""
    count = len(prompts)
    images = (
        make([prompt.text for prompt in prompts], range(SAMPLES, SAMPLES + count)),
        to_tensor([draw(sample(OTHERS + i, "val"), size) for i in range(count)]),
        to_tensor([draw(prompt.person, size) for prompt in prompts]),
    )
    return ShortRow(*(short_figures(reader.read(each), prompts) for each in images))
