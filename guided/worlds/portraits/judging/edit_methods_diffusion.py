"""Rows of scripts/judge edits that edit by diffusion, as ``guided edit --method NAME`` does."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.editing.base import Sources, stepped
from guided.editing.regions import Region
from guided.errors import ShapeError
from guided.models import Models
from guided.tasks._edit_options import Options
from guided.worlds.portraits.judging.edit_cases import may_change
from guided.worlds.portraits.judging.edit_figures import RUNS, Batch, EditedBatch
from guided.worlds.portraits.judging.edit_methods import EditMethod, EvalContext

ABOUT = {
    "sdedit": "noised and denoised towards the prompt.",
    "inpaint": "the same within a mask: where a perfect edit may change something.",
    "ddim": "the noise that DDIM's inversion finds, replayed with the prompt.",
    "ddpm": "the noise that edit-friendly DDPM inversion finds, replayed with the prompt.",
    "p2p": "the replay with the attention of the source's words.",
    "directional": "the replay with the prompt, steered by the guiding CLIP's difference of texts.",
    "text-diff": "the same noise, CLIP's embedding turned along its difference of texts.",
}

#: Our methods as `guided edit` runs them; a key here differs from the verb's default.
SETTINGS: dict[str, dict[str, Any]] = {name: {"method": name} for name in ABOUT}


def sources_of(models: Models, batch: Batch, method: str) -> Sources:
    """A batch's images, with what may change of them where the method takes a mask."""
    mask = None
    if method == "inpaint":
        mask = torch.stack([may_change(case, batch.size) for case in batch.cases])
        mask = mask.view(len(batch.cases), 1, batch.size, batch.size).to(batch.images)
    seeds = Seeds(tuple(case.seed for case in batch.cases))
    return Sources(
        [batch.images[i : i + 1] for i in range(len(batch.cases))], models, seeds, mask=mask
    )


def prepare(method: str, context: EvalContext, batch: Batch) -> Any:
    """The work of a method on a batch."""
    models = context.models.choosing({}, draws="denoiser")
    prompts = [case.edit.prompt for case in batch.cases]
    editor = Options(prompt=prompts[:1], **SETTINGS[method]).editor
    if editor.size(models) != batch.size:
        raise ShapeError(f"The diffusion model does not make pictures of {batch.size} pixels.")

    def work() -> EditedBatch:
        sources = sources_of(models, batch, method)
        state = drain(stepped(editor.start(sources)))
        cached: dict[float, torch.Tensor] = {}

        def at(strength: float) -> torch.Tensor:
            if strength not in cached:
                images = drain(stepped(editor.render(state, prompts, strength)))
                if sources.mask is not None:
                    images = Region.of(sources.mask, batch.images).keep(images)
                cached[strength] = images.clamp(0, 1)
            return cached[strength]

        at(1.0)
        return EditedBatch(at, before=batch.images)

    return work


DIFFUSION_METHODS = {
    name: EditMethod(
        f"`guided edit --method {name}`: {ABOUT[name]}",
        "search",
        partial(prepare, name),
        ("scorer", "denoiser", *(("latent_scorer",) if name == "directional" else ())),
        SETTINGS[name],
        RUNS,
    )
    for name in ABOUT
}
