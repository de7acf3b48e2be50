"""The method an edit's options ask for, and how CLIP judges what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.editing import Delta, Editor
from guided.core.objective import Objective
from guided.core.prompts import embed_prompts, parse
from guided.errors import CannotDo
from guided.guidance.edit import OptimiseEditor, styleclip_adam
from guided.tasks._edit_inputs import Subject
from guided.tasks._edit_models import EditModels
from guided.tasks._edit_rows import Texts, smallest_agreeing
from guided.tasks._losses import objective_of

if TYPE_CHECKING:
    from guided.generators.stylegan2 import Space
    from guided.tasks._edit_options import Options

_SAMPLES = 2048  # random codes behind the deviation of each StyleSpace channel


def editor_of(options: Options, models: EditModels, space: Space, mask: Tensor | None) -> Editor:
    """The editor of the method asked for; ``mask`` [B, 1, size, size] goes with the rows."""
    if options.method == "mapper":
        return _mapper(options, models)
    if options.method == "direction":
        return _direction(options, models)
    if options.method == "delta":
        return _delta(options, models)
    objective = objective_of(options.loss) if options.loss else usual_objective(options)
    kinds = {term.loss.kind for term in objective.terms}
    roles = {role: role in kinds for role in ("identity", "perceptual")}
    return OptimiseEditor(
        generator=models.generator,
        scorer=models.scorer,
        objective=objective,
        space=space,
        steps=options.steps,
        update=lambda: styleclip_adam(options.rate),
        models=models.by_role(roles),
        extras={} if mask is None else {"mask": mask},
    )


def usual_objective(options: Options) -> Objective:
    """CLIP, with identity, nearness and the mask at the weights the options give them."""
    from guided.losses.clip import Clip
    from guided.losses.identity import Identity
    from guided.losses.latent_l2 import LatentL2
    from guided.losses.masked_l1 import MaskedL1

    objective = Objective.of(Clip(preprocess=options.preprocess))
    if options.keep_identity > 0:
        objective += options.keep_identity * Identity()
    if options.near > 0:
        objective += options.near * LatentL2()
    if options.mask is not None and options.keep_outside > 0:
        objective += options.keep_outside * MaskedL1()
    return objective


def _mapper(options: Options, models: EditModels) -> Editor:
    from guided.guidance.one_pass import MapperEditor
    from guided.nets.mappers import StyleSpaceMapper, build_mapper, mapped
    from guided.zoo.checkpoint import read_checkpoint

    content = read_checkpoint(models.need("mapper"))
    marks = [name for name in content.tensors if name.endswith("mapping.1.weight")]
    for prefix in ("state_dict.mapper.", "mapper."):
        if any(name.startswith(prefix) for name in marks):
            state = content.part([name.removeprefix(prefix) for name in marks], (prefix,))
            break
    else:
        state = dict(content.tensors)
    net = models.bench.device.settle(build_mapper(state))
    space = "s" if isinstance(net, StyleSpaceMapper) else "w"
    return MapperEditor(
        generator=models.generator, change=lambda codes: mapped(net, codes), space=space
    )


def _direction(options: Options, models: EditModels) -> Editor:
    from guided.guidance.one_pass import DirectionEditor

    relevance = models.directions
    scorer = models.scorer
    if relevance.shape[1] != scorer.width:
        raise CannotDo(
            f"The statistics are {relevance.shape[1]} wide, the scorer {scorer.name!r} "
            f"{scorer.width}: they were made with another CLIP."
        )

    return DirectionEditor(
        generator=models.generator,
        relevance=relevance,
        deviations=channel_deviations(models),
        towards=lambda prompt: text_towards(options, models, prompt),
        beta=options.beta,
        alpha=options.alpha,
    )


def _delta(options: Options, models: EditModels) -> Editor:
    from guided.guidance.one_pass import DeltaEditor
    from guided.nets.delta import MARK, build_delta
    from guided.zoo.packing import load_weights

    path = models.need("delta")
    state = load_weights(path)
    net = models.bench.device.settle(build_delta(state))
    if state[MARK].shape[1] != 2 * models.scorer.width:
        raise CannotDo(
            f"The delta mapper {path} was made for features of {state[MARK].shape[1] // 2} "
            f"numbers; those of the scorer {models.scorer.name!r} have {models.scorer.width}.",
            hint="Scorer, generator and delta mapper must belong together.",
        )
    return DeltaEditor(
        generator=models.generator,
        change=net,
        embed=models.scorer.embed_images,
        towards=lambda prompt: text_towards(options, models, prompt),
    )


def text_towards(options: Options, models: EditModels, prompt: str) -> Tensor:
    """The unit direction [D] from the neutral text to a prompt, through the templates.

    Without templates in the options: those of the CLIP paper for CLIPs of photographs, the bare
    text for the portraits kit's own, which has learnt no others.
    """
    from guided.guidance.directions import text_direction
    from guided.scorers.zero_shot import prompts_of
    from guided.zoo.kits import load_kit

    scorer = models.scorer
    drawn = scorer.name == load_kit("portraits")["scorer"]
    wanted = options.template or (["{}"] if drawn else ["openai"])

    def said(text: str) -> Tensor:
        return scorer.embed_texts(prompts_of([text], wanted)[text])

    neutral = said(options.neutral)
    parts = [weight * text_direction(said(text), neutral) for text, weight in parse(prompt)]
    return F.normalize(torch.stack(parts).sum(0), dim=0).to(models.bench.device.torch)


def channel_deviations(models: EditModels) -> list[Tensor]:
    """The standard deviation [C_i] of each StyleSpace code over random portraits."""
    from guided.core.seeds import Seeds

    generator = models.generator
    start = generator.start(Seeds.of(0, _SAMPLES), truncation=0.7)
    return [code.std(0) for code in generator.in_space(start, "s").values()]


def saved_change(rows: Sequence[Subject], place: torch.device) -> Delta:
    """The changes the subjects were saved with, as one batch.

    Raises:
        CannotDo: a subject without a saved change.
    """
    from guided.tasks._edit_rows import stacked

    saved = [row.saved for row in rows if row.saved is not None and row.saved.change]
    if len(saved) < len(rows):
        raise CannotDo(
            "Only pictures of an earlier edit can be drawn again at another strength.",
            hint="Give --prompt to make a new edit.",
        )
    start = stacked([delta.start for delta in saved])
    change = stacked([delta.change for delta in saved])
    return Delta(
        {name: leaf.to(place) for name, leaf in start.items()},
        {name: leaf.to(place) for name, leaf in change.items()},
        saved[0].method,
    )


class Judgement:
    """How the guiding CLIP sees the edits of some prompts, beside what else could be shown."""

    def __init__(self, models: EditModels, neutral: str, prompts: Sequence[str]) -> None:
        self._models = models
        self._neutral = neutral
        self._prompts = prompts

    @cached_property
    def texts(self) -> Texts:
        """The prompts, and for each the neutral text and those that say something else of it."""
        scorer = self._models.scorer
        each, weights = embed_prompts(scorer, self._prompts)
        wanted = F.normalize((weights[..., None] * each).sum(1), dim=1)
        known = {prompt: self._others(prompt) for prompt in dict.fromkeys(self._prompts)}
        return Texts(wanted, [known[prompt] for prompt in self._prompts])

    def _others(self, prompt: str) -> Tensor:
        from guided.portraits.rivals import rivals

        parts = parse(prompt)
        alone = parts[0][0] if len(parts) == 1 and parts[0][1] > 0 else ""
        found: Tensor = self._models.scorer.embed_texts([self._neutral, *rivals(alone)])
        return found

    def smallest(self, delta: Delta, grid: Sequence[float]) -> list[float]:
        """The smallest strength of ``grid`` at which CLIP names the prompt, for each row."""
        return smallest_agreeing(self._models, delta, self.texts, grid)

    def figures(self, before: Tensor, after: Tensor) -> list[dict[str, Any]]:
        """For each row: the cosine with the prompt before and after, the gain, and agreement."""
        if not all(self._prompts):
            return [{} for _ in self._prompts]
        wanted = self.texts.prompts
        embed: Callable[[Tensor], Tensor] = self._models.scorer.embed_images
        with torch.no_grad():
            old, new = embed(before.clamp(0, 1)), embed(after.clamp(0, 1))
        rows: list[dict[str, Any]] = []
        for i in range(len(self._prompts)):
            was, now = float(old[i] @ wanted[i]), float(new[i] @ wanted[i])
            rows.append(
                {
                    "clip_before": was,
                    "clip_after": now,
                    "clip_gain": now - was,
                    "agrees": self.texts.agrees(i, new[i]),
                }
            )
        return rows
