"""The demo's chapters on pictures from words: what was asked for, and what the reader sees."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from guided.core.run import Step
from guided.tasks import _report as html
from guided.tasks._report import Section
from guided.tasks.base import TaskContext

if TYPE_CHECKING:
    from PIL import Image

    from guided.tasks._generate_gan import GanJob
    from guided.worlds.portraits.judging.reader import Reader

PROMPTS = (
    "a smiling person with pink hair and round glasses",
    "a surprised bald person with a full beard on a blue background",
    "a frowning person in a top hat with sunglasses and earrings",
)
#: Pictures of a prompt, and of the way from the first prompt to the second.
PEOPLE, STATIONS = 5, 6


def the_gan(ctx: TaskContext, reader: Reader) -> Generator[Step[Any], None, Section]:
    """Draw the same people for several prompts in one pass each, and lead one prompt to another.

    Raises:
        MissingWeights: the kit's text GAN, its CLIP or the reader is not on this computer.
    """
    import torch

    from guided.core.images import to_images
    from guided.core.seeds import Seeds
    from guided.generators.text_gan import between

    job = _opened(ctx)
    gan, seeds = job.gan, Seeds.of(ctx.seed, PEOPLE)
    rows: list[list[Image.Image]] = []
    with torch.no_grad():
        for place, prompt in enumerate(PROMPTS):
            pictures = to_images(gan.render(gan.start(seeds, [prompt])))
            rows.append(pictures)
            yield Step(place + 1, len(PROMPTS) + 1, "pictures from words", {}, None)
        ends = [gan.start(Seeds.of(ctx.seed, 1), [prompt]) for prompt in PROMPTS[:2]]
        parts = [place / (STATIONS - 1) for place in range(STATIONS)]
        way = to_images(gan.render(between(ends[0], ends[1], parts)))
    yield Step(len(PROMPTS) + 1, len(PROMPTS) + 1, "pictures from words", {}, None)
    told = [fulfilled(reader, row, prompt) for row, prompt in zip(rows, PROMPTS, strict=True)]
    share = sum(sum(each) for each in told) / sum(len(each) for each in told)
    body = (
        html.paragraph(
            "A small GAN listens to CLIP's view of the words and draws in one pass. A column is "
            "one z with other words: the same person where the words leave them the same. The "
            f"reader, which took no part, finds {share:.0%} of what was asked for."
        )
        + "".join(
            _row(prompt, row, marks) for prompt, row, marks in zip(PROMPTS, rows, told, strict=True)
        )
        + html.paragraph("From the first prompt to the second with one z:")
        + html.grid((html.figure([p], f"{part:.0%}") for p, part in zip(way, parts, strict=True)),
                    110)
    )  # fmt: skip
    return Section("Pictures from words in one pass", body, {"gan_fulfilled": share})


def _opened(ctx: TaskContext) -> GanJob:
    """The kit's text GAN with the CLIP it listens to.

    Raises:
        MissingWeights: the kit names none, or it is not on this computer.
    """
    from guided.tasks._generate_gan import open_job
    from guided.tasks._generate_options import Options

    ctx.named("text_gan")
    return open_job(Options(prompts=list(PROMPTS), method="gan"), ctx)


def fulfilled(reader: Reader, pictures: Sequence[Image.Image], prompt: str) -> list[float]:
    """For each picture the share of what a prompt claims that the reader sees in it."""
    from guided.core.images import to_tensor
    from guided.worlds.portraits.grammar.claims import all_true
    from guided.worlds.portraits.judging.caption_parser import read_caption

    claims = read_caption(prompt).claims
    seen = reader.read(to_tensor(pictures))
    return [
        sum(all_true((claim,), each.attributes) for claim in claims) / len(claims) for each in seen
    ]


def _row(prompt: str, pictures: Sequence[Image.Image], told: Sequence[float]) -> str:
    """A prompt and its pictures, each with the share of the prompt that the reader sees in it."""
    return html.paragraph(f"“{prompt}”") + seen_row(pictures, told)


def seen_row(pictures: Sequence[Image.Image], told: Sequence[float]) -> str:
    """Pictures, each with the share of a prompt that the reader sees in it."""
    figures = (
        html.figure([picture], f"{share:.0%} seen")
        for picture, share in zip(pictures, told, strict=True)
    )
    return html.grid(figures, 110)
