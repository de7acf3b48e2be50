"""The demo's chapter on edits: one portrait changed by words, weaker and stronger."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

from guided.core.run import Step, renumber
from guided.tasks import _report as html
from guided.tasks._report import Section
from guided.tasks.base import TaskContext

if TYPE_CHECKING:
    from torch import Tensor

    from guided.editing.base import EditState
    from guided.editing.latent import LatentEditor
    from guided.models import Models
    from guided.worlds.portraits import Portrait

#: Parts of the edit's strength that are shown; 0 is the original, 1 the edit.
SWEEP = (-1.0, 0.0, 0.5, 1.0, 1.5)
#: Steps of the search where there is no delta mapper.
STEPS = 40
#: Steps of the search that brings the encoder's latent nearer to the portrait.
REDRAWN = 40
ResultT = TypeVar("ResultT")


def the_edit(ctx: TaskContext, portrait: Portrait) -> Generator[Step[Any], None, Section]:
    """Invert a portrait, edit it by words, and show it at several strengths.

    Raises:
        MissingWeights: the kit's generator, inversion encoder or scorer is not on this computer.
    """
    import torch

    from guided.core.images import to_images
    from guided.core.run import drain
    from guided.editing.strengths import least_agreeing
    from guided.editing.texts import ClipEditMetrics
    from guided.worlds.portraits import draw
    from guided.worlds.portraits.judging.edit_cases import EDITS, Case

    models = _here(ctx)
    edit = next(each for each in EDITS if each.possible(portrait))
    editor, prompts = _editor(models), [edit.prompt]
    size = models.generator.size
    source = Case(edit, portrait, ctx.seed).picture(size)[None]
    state = yield from _changed(models, editor, source, prompts)
    metrics = ClipEditMetrics(state.sources, prompts)
    with torch.no_grad():
        (strength,), after, _ = drain(least_agreeing(editor, state, prompts, metrics.texts))
        before = drain(editor.render(state, prompts, 0.0))
        (told,) = metrics.figures(before, after)
        if models.has("identity"):
            same = models.identity.embed_images
            told["identity"] = float((same(before) * same(after)).sum())
        shown = [
            to_images(drain(editor.render(state, prompts, part * strength)))[0] for part in SWEEP
        ]
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
            f"portrait; the method {type(editor).__name__.lower()} moves it as the words "
            f"“{edit.text}” ask. The guiding CLIP {agrees} that they are true now, at the strength "
            f"{strength:g}, the least that makes it. At other strengths nothing is searched anew:"
        )
        + html.grid((html.figure([picture], said) for said, picture in pictures.items()), 150)
        + html.grid(
            (html.figure([picture], f"strength {part * strength:.2g}")
             for part, picture in zip(SWEEP, shown, strict=True)), 110)
    )  # fmt: skip
    names = ("clip_gain", "identity")
    scores = {f"edit_{name}": float(told[name]) for name in names if name in told}
    return Section("One portrait, edited by words", body, scores)


def _models(ctx: TaskContext) -> Models:
    return ctx.models


def _here(ctx: TaskContext) -> Models:
    """The kit's models for edits.

    Raises:
        MissingWeights: no generator or no encoder, or they are not on this computer.
    """
    models = _models(ctx)
    for role in ("generator", "inverter"):
        if models.file(role) is None:
            ctx.named(role)
    return models


def _editor(models: Models) -> LatentEditor:
    from guided.editing.optimise import Optimise
    from guided.editing.refine import Refine

    if models.has("delta"):
        return Refine()
    return Optimise(steps=STEPS, keep_identity=0.1 if models.has("identity") else 0.0)


def _changed(
    models: Models, editor: LatentEditor, source: Tensor, prompts: list[str]
) -> Generator[Step[Any], None, EditState]:
    """What the editor knows of one image [1, 3, size, size] once its change is found."""
    from guided.core.seeds import Seeds
    from guided.editing.base import Sources
    from guided.editing.latent import search

    images = source.to(models.device.torch)
    start = yield from renumber(
        search(models, models.inverter.invert(images), images, REDRAWN), label="an edit"
    )
    state = yield from editor.start(Sources([images], models, Seeds.of(0), latents=[start]))
    yield from renumber(editor.change_of(state, prompts), label="an edit")
    return state
