"""Show what guided can do, offline, in one page that opens in any browser.

Draws a world, lets the models look at it and writes a contact sheet and ``report.html``, which
holds its pictures itself.  A chapter whose model is not on this computer is left out, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from guided.core.run import OutputImage, Result, Step
from guided.core.seeds import seed_at
from guided.errors import MissingWeights
from guided.tasks import _report as html
from guided.tasks._report import Section
from guided.tasks.base import Steps, TaskContext, TaskOptions, option
from guided.worlds.portraits.tasks import (
    _demo_caption,
    _demo_denoise,
    _demo_edit,
    _demo_generate,
    _demo_search,
)

if TYPE_CHECKING:
    from PIL import Image

    from guided.worlds.portraits import Portrait
    from guided.worlds.portraits.judging.reader import Reader, ReaderOutput

REPORT = "report.html"
SHEET = "sheet.png"
LEAD = (
    "Find the latent whose picture a CLIP likes best: guided steers image and text generators "
    "with words. This page was made on your computer, without the network."
)


class Options(TaskOptions):
    """The recipe keys of ``demo``."""

    count: int = option("portraits on the contact sheet", 24, ge=4, le=96)
    exam: int = option("new portraits the reader is examined on", 160, ge=8, le=5000)


@dataclass
class Stage:
    """What the chapters share: the options, the context, the portraits and the loaded models."""

    options: Options
    ctx: TaskContext

    @cached_property
    def portraits(self) -> list[Portrait]:
        """New portraits, which no training ever shows."""
        from guided.worlds.portraits import sample

        return [sample(self.ctx.seed_at(index), "val") for index in range(self.options.count)]

    @cached_property
    def images(self) -> list[Image.Image]:
        """The pictures of the portraits."""
        from guided.worlds.portraits import draw

        return [draw(portrait) for portrait in self.portraits]

    @cached_property
    def hero(self) -> Portrait:
        """A portrait all of whose attributes can be seen."""
        from guided.worlds.portraits import sample

        seed = self.ctx.seed
        while not all((portrait := sample(seed, "val")).visible().values()):
            seed = seed_at(seed, 1)
        return portrait

    @cached_property
    def reader(self) -> Reader:
        """The kit's reader.

        Raises:
            MissingWeights: it is not on this computer.
        """
        from guided.worlds.portraits.judging.reader import Reader

        name = self.ctx.kit.get("reader", "reader")
        reader = Reader.load(name, self.ctx.device)
        self.ctx.notes[name] = reader.sha256
        return reader

    def read(self, image: Image.Image) -> ReaderOutput:
        """What the reader sees in one picture."""
        from guided.core.images import to_tensor

        return self.reader.read(to_tensor(image))[0]


Chapter = Callable[[Stage], Generator[Step[Any], None, Section]]


# --------------------------------------------------------------------------- chapters


def the_world(stage: Stage) -> Generator[Step[Any], None, Section]:
    """The drawn world: many portraits, and all that is known of one."""
    from guided.worlds.portraits import draw
    from guided.worlds.portraits.record import record

    figures = []
    for index, (portrait, image) in enumerate(zip(stage.portraits, stage.images, strict=True)):
        known = record(portrait, stage.ctx.seed_at(index), "", {})
        figures.append(html.figure([image], min(known["captions"], key=len)))
        yield Step(index + 1, len(stage.portraits), "the world")
    known = record(stage.hero, stage.ctx.seed, "", {})
    asked = [f"{entry['question']} → {entry['answer']}" for entry in known["questions"][:6]]
    told = (
        html.paragraph("Everything about a portrait is known exactly. It can be said in words:")
        + html.points(known["captions"][:3])
        + html.paragraph("asked about:")
        + html.points(asked)
        + html.paragraph("and drawn in steps:")
        + html.points(known["steps"])
    )
    body = (
        html.paragraph(
            f"{len(figures)} people who exist nowhere else: a world drawn from "
            "attributes, so every picture has a true description to be judged by."
        )
        + html.grid(figures)
        + html.beside(html.figure([draw(stage.hero, 384)], known["captions"][0]), told)
    )
    return Section("A world with known truth", body, {})


def the_reader(stage: Stage) -> Generator[Step[Any], None, Section]:
    """The reader looks at portraits and is examined on new ones."""
    figures = []
    shown = list(zip(stage.portraits, stage.images, strict=True))[:8]
    for index, (portrait, image) in enumerate(shown):
        figures.append(_reading_figure(stage, portrait, image))
        yield Step(index + 1, len(shown), "the reader looks")
    scores = yield from _exam(stage)
    mean = sum(scores.values()) / len(scores)
    body = (
        html.paragraph(
            "A small network reads every attribute off the pixels. It is the judge of "
            "what the other models make, so nothing is ever optimised by it. What it got wrong is "
            "struck out."
        )
        + html.grid(figures, 210)
        + html.paragraph(
            f"Examined on {stage.options.exam} new portraits it gave the right value in "
            f"{mean:.1%} of the cases a viewer could tell:"
        )
        + html.bars(scores)
    )
    return Section("The reader", body, {"reader_accuracy": mean})


def _reading_figure(stage: Stage, portrait: Portrait, image: Image.Image) -> str:
    reading = stage.read(image)
    seen = portrait.visible()
    said = []
    for key, value in reading.attributes.items():
        if value is None or not seen[key]:
            continue
        sure = reading.probabilities[key][value]
        words = f"{key.replace('_', ' ')} <b>{html.text(value)}</b> {sure:.0%}"
        right = value == portrait.attributes[key]
        said.append(words if right else f'<s class="wrong">{words}</s>')
    return html.figure([image], "a drawn portrait", ", ".join(said))


def _exam(stage: Stage) -> Generator[Step[Any], None, dict[str, float]]:
    """The reader's accuracy by attribute on new portraits, counted where they are visible."""
    from guided.core.images import to_tensor
    from guided.worlds.portraits import KEYS, draw, sample

    total, batch = stage.options.exam, 16
    right, asked = dict.fromkeys(KEYS, 0), dict.fromkeys(KEYS, 0)
    for start in range(0, total, batch):
        seeds = range(start, min(start + batch, total))
        portraits = [sample(stage.ctx.seed_at(1_000_000 + seed), "val") for seed in seeds]
        readings = stage.reader.read(to_tensor([draw(portrait) for portrait in portraits]))
        for portrait, reading in zip(portraits, readings, strict=True):
            for key in (key for key, seen in portrait.visible().items() if seen):
                asked[key] += 1
                right[key] += reading.attributes[key] == portrait.attributes[key]
        yield Step(seeds[-1] + 1, total, "the reader's exam")
    return {key.replace("_", " "): right[key] / asked[key] for key in KEYS if asked[key]}


def the_counterfactuals(stage: Stage) -> Generator[Step[Any], None, Section]:
    """One change a time: the same person with one attribute changed, and what the reader says."""
    from guided.worlds.portraits import KEYS, draw

    before = draw(stage.hero, 256)
    figures, noticed, kept, others = [], 0, 0, 0
    first = stage.read(before).attributes
    for index, key in enumerate(KEYS):
        changed = _changed(stage.hero, key, stage.ctx.seed)
        after = draw(changed, 256)
        second = stage.read(after).attributes
        wanted, old = changed.attributes[key], stage.hero.attributes[key]
        noticed += second[key] == wanted
        rest = [k for k in KEYS if changed.visible()[k] and k not in (key, "hat_color")]
        kept += sum(second[k] == first[k] for k in rest)
        others += len(rest)
        verdict = "the reader agrees" if second[key] == wanted else f"the reader: {second[key]}"
        told = f"{key.replace('_', ' ')}: {old} → {wanted}"
        kind = "soft" if second[key] == wanted else "wrong"
        caption = f'<b>{html.text(told)}</b><br><span class="{kind}">{html.text(verdict)}</span>'
        figures.append(html.figure([before, after], told, caption))
        yield Step(index + 1, len(KEYS), "one change a time")
    scores = {"changes_noticed": noticed / len(KEYS), "others_kept": kept / max(others, 1)}
    body = html.paragraph(
        f"The same person, drawn again with one attribute changed. The reader noticed {noticed} of "
        f"{len(KEYS)} changes and read {scores['others_kept']:.1%} of everything else as before. "
        "These pairs are the truth that edits made with words are measured against."
    ) + html.grid(figures, 280)
    return Section("One change at a time", body, scores)


def _changed(portrait: Portrait, key: str, seed: int) -> Portrait:
    """The portrait with another value of one attribute, which can still be seen."""
    from guided.worlds.portraits import VALUES

    others = [value for value in VALUES[key] if value != portrait.attributes[key]]
    for turn in range(len(others)):
        changed = portrait.with_attribute(key, others[(seed + turn) % len(others)])
        if changed.visible()[key]:
            break
    return changed


def the_search(stage: Stage) -> Generator[Step[Any], None, Section]:
    """Find portraits by words, and sort them into classes known by name alone."""
    return (yield from _demo_search.the_search(stage.ctx))


def the_caption(stage: Stage) -> Generator[Step[Any], None, Section]:
    """A language model that never saw a picture describes one, word by word."""
    return (yield from _demo_caption.the_caption(stage.ctx, stage.hero))


def the_edit(stage: Stage) -> Generator[Step[Any], None, Section]:
    """A portrait is changed by words, weaker and stronger."""
    return (yield from _demo_edit.the_edit(stage.ctx, stage.hero))


def the_gan(stage: Stage) -> Generator[Step[Any], None, Section]:
    """Pictures of three prompts, from a GAN in one pass."""
    return (yield from _demo_generate.the_gan(stage.ctx, stage.reader))


def the_diffusion(stage: Stage) -> Generator[Step[Any], None, Section]:
    """Pictures of a prompt that grow out of noise, steered by CLIP and not."""
    return (yield from _demo_denoise.the_diffusion(stage.ctx, stage.reader))


def the_variations(stage: Stage) -> Generator[Step[Any], None, Section]:
    """A portrait drawn anew from CLIP's view of it, and turned towards words."""
    return (yield from _demo_denoise.the_variations(stage.ctx, stage.hero))


#: The chapters in their order; each yields Steps and returns its part of the page.
CHAPTERS: tuple[Chapter, ...] = (
    the_world,
    the_reader,
    the_counterfactuals,
    the_search,
    the_caption,
    the_edit,
    the_gan,
    the_diffusion,
    the_variations,
)


# --------------------------------------------------------------------------- the page


def run(options: Options, ctx: TaskContext) -> Steps:
    """Play the chapters and bind their sections into one page."""
    from guided.worlds.portraits import sheet

    stage = Stage(options, ctx)
    sections: list[Section] = []
    told: list[dict[str, Any]] = []
    for chapter in CHAPTERS:
        began = time.monotonic()
        section, left_out = yield from _played(chapter, stage)
        sections.append(section)
        seconds = round(time.monotonic() - began, 1)
        told.append({"title": section.title, "seconds": seconds, "left_out": left_out})
    scores = {name: value for section in sections for name, value in section.scores.items()}
    where = str(ctx.folder / REPORT) if ctx.folder is not None else REPORT
    picture = OutputImage(SHEET, sheet(stage.images, 6))
    page = html.page("guided: a first look", LEAD, sections, _foot(ctx))
    answer = {"report": where, "sheet": picture, "chapters": told, "scores": dict(scores)}
    return Result(answer, [picture], {REPORT: page}, scores)


def _played(
    chapter: Chapter, stage: Stage
) -> Generator[Step[Any], None, tuple[Section, str | None]]:
    """A chapter's section; one that says why it is left out where a model is missing."""
    try:
        return (yield from chapter(stage)), None
    except MissingWeights as error:
        title = chapter.__name__.removeprefix("the_").replace("_", " ").capitalize()
        body = html.paragraph(f"Left out: {error}", "soft")
        return Section(title, body, {}), str(error)


def _foot(ctx: TaskContext) -> str:
    from guided import __version__

    kept: Mapping[str, Any] = ctx.notes
    models = ", ".join(f"{name} ({str(digest)[:12]})" for name, digest in kept.items()) or "none"
    return (
        f"Made by guided {html.text(__version__)} with seed {ctx.seed}. "
        f"Models: {html.text(models)}. The same page again: "
        f"<code>guided demo --seed {ctx.seed}</code>"
    )
