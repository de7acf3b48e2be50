"""The demo's chapters on diffusion: pictures that grow out of noise, and pictures drawn anew."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guided.core.run import Step, drain
from guided.core.seeds import seed_at
from guided.tasks import _report as html
from guided.tasks._generate_options import Options
from guided.tasks._report import Section
from guided.tasks.base import TaskContext
from guided.worlds.portraits.tasks._demo_generate import fulfilled, seen_row

if TYPE_CHECKING:
    from PIL import Image

    from guided.tasks._generate_diffusion import DiffusionJob
    from guided.tasks.vary import VariationJob
    from guided.worlds.portraits import Portrait
    from guided.worlds.portraits.judging.reader import Reader

PROMPT = "a smiling person with curly blonde hair, sunglasses and earrings on a pink background"
TOWARD = "pink hair"
#: Pictures with and without steering, drafts of the first one, pictures of each way to vary.
PEOPLE, DRAFTS, WAYS = 5, 7, 5
STEPS = 16


@dataclass
class GeneratedChapter:
    """What a run made: drafts of its first picture on the way, and the pictures."""

    drafts: list[Image.Image] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)


def the_diffusion(ctx: TaskContext, reader: Reader) -> Generator[Step[Any], None, Section]:
    """The same noise becomes pictures of a prompt without CLIP's word on them, and with it.

    Raises:
        MissingWeights: the kit's denoiser, its CLIP or the reader is not on this computer.
    """
    found = []
    for label, guide in (("from noise", []), ("from noise, steered", ["prompt"])):
        found.append((yield from _drawn(_opened(ctx, guide), ctx.seed, label)))
    plain, steered = found
    told = [fulfilled(reader, each.pictures, PROMPT) for each in found]
    shares = [sum(each) / len(each) for each in told]
    drafts = (html.figure([p], f"draft {i + 1}") for i, p in enumerate(plain.drafts))
    body = (
        html.paragraph(
            f"“{PROMPT}” — a denoiser takes noise away step by step. What it thinks the "
            "picture will be, on the way:"
        )
        + html.grid(drafts, 110)
        + html.paragraph(
            "One noise a column: above as the denoiser draws it, below with CLIP's gradient in "
            f"every step. The reader, which took no part, finds {shares[0]:.0%} and "
            f"{shares[1]:.0%} of what was asked for."
        )
        + seen_row(plain.pictures, told[0])
        + seen_row(steered.pictures, told[1])
    )
    scores = {"diffusion_fulfilled": shares[0], "diffusion_steered": shares[1]}
    return Section("Pictures out of noise", body, scores)


def the_variations(ctx: TaskContext, hero: Portrait) -> Generator[Step[Any], None, Section]:
    """A portrait drawn anew from its CLIP embedding, and turned towards words.

    Raises:
        MissingWeights: the kit's denoiser or its CLIP is not on this computer.
    """
    from guided.core.images import to_images, to_tensor
    from guided.generators.diffusion.source import image_size
    from guided.worlds.portraits import draw

    job = _varying(ctx)
    source = draw(hero, image_size(job.model.pipe))
    found = drain(job.inverted(to_tensor([source]).to(ctx.device.torch)))
    rows: list[list[Image.Image]] = []
    for place, (toward, eta) in enumerate((("", 1.0), (TOWARD, 0.0))):
        job.options = job.options.model_copy(update={"toward": toward})
        places = drain(job.places(found))
        seeds = [ctx.seed_at(i if eta else 0) for i in range(len(places))]
        rows.append(to_images(drain(job.drawn(places, seeds, eta))))
        yield Step(place + 1, 2, "variations")
    body = (
        html.paragraph(
            "A portrait kept as CLIP's view of it alone: the decoder draws that view again with "
            "other noise. What CLIP saw stays, what it did not see is made up."
        )
        + html.grid((html.figure([p], "drawn anew" if i else "portrait")
                     for i, p in enumerate([source, *rows[0]])), 110)
        + html.paragraph(f"The same portrait, its view turned step by step towards “{TOWARD}”:")
        + html.grid((html.figure([p], f"{(i + 1) / WAYS:.0%}")
                     for i, p in enumerate(rows[1])), 110)
    )  # fmt: skip
    return Section("Variations of a picture", body, {})


def _drawn(
    job: DiffusionJob, seed: int, label: str
) -> Generator[Step[Any], None, GeneratedChapter]:
    """All pictures of a job in one batch, with drafts of the first."""
    from guided.core.images import to_images

    made, every = GeneratedChapter(), max(STEPS // DRAFTS, 1)
    rows = [(PROMPT, seed_at(seed, place)) for place in range(PEOPLE)]
    for step in job.make(rows, 0, len(rows)):
        if step.draft is not None and step.index % every == 0 and len(made.drafts) < DRAFTS:
            made.drafts += to_images(step.draft.image[:1].float().clamp(0, 1))
        yield Step(step.index, step.total, label)
    made.pictures = [entry["image"].image for entry in job.results]
    return made


def _opened(ctx: TaskContext, guide: list[str]) -> DiffusionJob:
    """The kit's diffusion model, steered by ``guide``.

    Raises:
        MissingWeights: the kit names none, or it is not on this computer.
    """
    from guided.tasks._generate_diffusion import DiffusionJob

    ctx.named("denoiser")
    options = Options(prompts=[PROMPT], steps=STEPS, guide=guide, count=PEOPLE)
    return DiffusionJob(options, ctx.unsaved(), ctx.models.of(options).denoiser)


def _varying(ctx: TaskContext) -> VariationJob:
    """The kit's variations.

    Raises:
        MissingWeights: the kit names no denoiser, or it is not on this computer.
    """
    from guided.tasks.vary import Options, VariationJob

    ctx.named("denoiser")
    return VariationJob.of(Options(images=[], count=WAYS, steps=STEPS), ctx)
