"""The demo's chapter on edits: one portrait changed by words, weaker and stronger."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

from guided.core.run import Step
from guided.tasks import _report as html
from guided.tasks._edit_models import EditModels
from guided.tasks._report import Section
from guided.tasks.base import Workbench

if TYPE_CHECKING:
    from torch import Tensor

    from guided.judging.edit_cases import Edit
    from guided.portraits import Portrait
    from guided.tasks._edit_options import Options
    from guided.tasks._edit_regions import View

#: Parts of the edit's strength that are shown; 0 is the original, 1 the edit.
SWEEP = (-1.0, 0.0, 0.5, 1.0, 1.5)
#: Steps of the search where there is no delta mapper.
STEPS = 40
#: Steps of the search that brings the encoder's latent nearer to the portrait.
REDRAWN = 40
ResultT = TypeVar("ResultT")


def the_edit(bench: Workbench, portrait: Portrait) -> Generator[Step[Any], None, Section]:
    """Invert a portrait, edit it by words, and show it at several strengths.

    Raises:
        MissingWeights: the kit's generator, inversion encoder or scorer is not on this computer.
    """
    import torch

    from guided.core.images import to_images
    from guided.judging.edit_cases import EDITS, Case
    from guided.portraits import draw
    from guided.tasks._edit_editors import Judgement
    from guided.tasks._edit_options import STRENGTHS

    models = _here(bench)
    edit = next(each for each in EDITS if each.possible(portrait))
    options = _options(models, edit)
    size = models.generator.size
    source = Case(edit, portrait, bench.seed).picture(size)[None]
    view = yield from _changed(models, options, source)
    judge = Judgement(models, options.neutral, options.prompt)
    with torch.no_grad():
        (strength,) = judge.smallest(view.delta, STRENGTHS)
        before, after = view.at(0.0), view.at(strength)
        (told,) = judge.figures(before, after)
        if models.here("identity"):
            same = models.identity.embed_images
            told["identity"] = float((same(before) * same(after)).sum())
        shown = [to_images(view.at(part * strength))[0] for part in SWEEP]
    pictures = {
        "the portrait": to_images(source)[0],
        "as the generator draws it": to_images(before)[0],
        f"edited: {edit.text}": to_images(after)[0],
        "the renderer's own answer": draw(edit.truths(portrait)[0], size),
    }
    agrees = "agrees" if told["agrees"] else "does not agree"
    body = (
        html.paragraph(
            "An encoder and a short search find the latent with which a small StyleGAN2 redraws a "
            "portrait; the "
            f"method {options.method} moves it as the words “{edit.text}” ask. The guiding CLIP "
            f"{agrees} that they are true now, at the strength {strength:g}, the least that makes "
            "it. At other strengths nothing is searched anew:"
        )
        + html.grid((html.figure([picture], said) for said, picture in pictures.items()), 150)
        + html.grid(
            (html.figure([picture], f"strength {part * strength:.2g}")
             for part, picture in zip(SWEEP, shown, strict=True)), 110)
    )  # fmt: skip
    names = ("clip_gain", "identity")
    scores = {f"edit_{name}": float(told[name]) for name in names if name in told}
    return Section("One portrait, edited by words", body, scores)


def _here(bench: Workbench) -> EditModels:
    """The kit's models for edits.

    Raises:
        MissingWeights: no generator or no encoder, or they are not on this computer.
    """
    models = EditModels(bench, {})
    for role in ("generator", "inverter"):
        if models.file(role) is None:
            bench.named(role)
    return models


def _options(models: EditModels, edit: Edit) -> Options:
    from guided.tasks._edit_options import Options

    return Options(
        prompt=[edit.prompt],
        method="refine" if models.here("delta") else "optimise",
        steps=STEPS,
        keep_identity=0.1 if models.here("identity") else 0.0,
    )


def _changed(
    models: EditModels, options: Options, source: Tensor
) -> Generator[Step[Any], None, View]:
    """The change that the options ask for, of one picture [1, 3, size, size]."""
    from guided.tasks._edit_editors import editor_of
    from guided.tasks._edit_regions import View
    from guided.tasks._edit_rows import search

    images = source.to(models.bench.device.torch)
    start = yield from _told(search(models, models.inverter.invert(images), images, REDRAWN))
    moves = editor_of(options, models, "w", None).propose(start, options.prompt)
    return View(models.generator, (yield from _told(moves)))


def _told(steps: Generator[Step[Any], None, ResultT]) -> Generator[Step[Any], None, ResultT]:
    """The same Steps under the chapter's name."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            found: ResultT = end.value
            return found
        yield Step(step.index, step.total, "an edit", step.losses)
