"""Rows of scripts/judge_edits that edit by diffusion, as ``guided edit --method NAME`` does."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from edit_rows import Desk, Row

from guided.core.run import drained
from guided.core.seeds import Seeds
from guided.errors import ShapeError
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion_source import picture_size
from guided.judging.edit_cases import may_change
from guided.judging.edit_figures import RUNS, Batch, Drawn
from guided.tasks import _generate_diffusion
from guided.tasks._edit_denoising import Sources, source_words
from guided.tasks._edit_diffusion import editor_of
from guided.tasks._edit_diffusion_options import METHODS
from guided.tasks._edit_options import Options
from guided.tasks._edit_regions import Region
from guided.tasks._generate_options import Options as Asked

ABOUT = {
    "sdedit": "noised and denoised towards the prompt.",
    "inpaint": "the same within a mask: where a perfect edit may change something.",
    "ddim": "the noise that DDIM's inversion finds, replayed with the prompt.",
    "ddpm": "the noise that edit-friendly DDPM inversion finds, replayed with the prompt.",
    "p2p": "the replay with the attention of the source's words.",
    "directional": "the replay with the prompt, steered by the guiding CLIP's difference of texts.",
    "turn": "the same noise, CLIP's embedding turned along its difference of texts.",
}

#: Our methods as `guided edit` runs them; a key here differs from the verb's default.
SETTINGS: dict[str, dict[str, Any]] = {name: {"method": name} for name in METHODS}


def model_of(desk: Desk) -> Diffusion:
    """The desk's diffusion model, opened once.

    Raises:
        MissingWeights: it is not here.
    """
    known = vars(desk)
    if "diffusion" not in known:
        asked = Asked(prompts=["-"], denoiser=desk.roles.get("denoiser", ""))
        known["diffusion"] = _generate_diffusion.open_model(asked, desk.models.bench)
    found: Diffusion = known["diffusion"]
    return found


def sources_of(desk: Desk, batch: Batch, method: str) -> Sources:
    """A batch's pictures with the prompts of its cases and what CLIP sees in their place."""
    scorer, prompts = desk.models.scorer, [case.edit.prompt for case in batch.cases]
    with torch.no_grad():
        seen = scorer.embed_images(batch.images)
    words = [source_words(p, row, scorer) for p, row in zip(prompts, seen, strict=True)]
    mask = None
    if method == "inpaint":
        mask = torch.stack([may_change(case, batch.size) for case in batch.cases])
        mask = mask.view(len(prompts), 1, batch.size, batch.size).to(batch.images)
    seeds = Seeds(tuple(case.seed for case in batch.cases))
    return Sources(batch.images, prompts, words, seeds, mask)


def prepare(method: str, desk: Desk, batch: Batch) -> Any:
    """The work of a method on a batch; every strength is a run of its own."""
    model = model_of(desk)
    if picture_size(model.pipe) != batch.size:
        raise ShapeError(f"The diffusion model does not make pictures of {batch.size} pixels.")
    options = Options(prompt=[batch.cases[0].edit.prompt], **SETTINGS[method])
    editor = editor_of(options, model, desk.models)

    def work() -> Drawn:
        sources = sources_of(desk, batch, method)
        kept: dict[float, torch.Tensor] = {}

        def at(strength: float) -> torch.Tensor:
            if strength not in kept:
                images = drained(editor.pictures(sources, strength))
                if sources.mask is not None:
                    images = Region.of(sources.mask, sources.images).keep(images)
                kept[strength] = images.clamp(0, 1)
            return kept[strength]

        at(1.0)
        return Drawn(at, before=batch.images)

    return work


DIFFUSION = {
    name: Row(
        f"`guided edit --method {name}`: {ABOUT[name]}",
        "search",
        partial(prepare, name),
        ("scorer", "denoiser", *(("latent_scorer",) if name == "directional" else ())),
        SETTINGS[name],
        RUNS,
    )
    for name in METHODS
}
