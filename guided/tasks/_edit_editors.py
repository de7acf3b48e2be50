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
from guided.tasks._edit_options import AUTO
from guided.tasks._edit_rows import Texts, smallest_agreeing
from guided.tasks._losses import objective_of

if TYPE_CHECKING:
    from guided.generators.stylegan2 import Space
    from guided.tasks._edit_options import Options

#: What pictures show where nothing else is said, and the option that lets CLIP find out.
NEUTRAL = "a portrait"
_SAMPLES = 2048  # random codes behind the deviation of each StyleSpace channel


def editor_of(options: Options, models: EditModels, space: Space, mask: Tensor | None) -> Editor:
    """The editor of the method asked for; ``mask`` [B, 1, size, size] goes with the rows."""
    if options.method == "mapper":
        return _mapper(options, models)
    if options.method == "direction":
        return _direction(options, models)
    if options.method == "delta":
        return _delta(options, models)
    if options.method == "refine":
        return _refine(options, models)
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
        embed=scorer.embed_images,
        towards=Towards(options, models),
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
        towards=Towards(options, models),
    )


def _refine(options: Options, models: EditModels) -> Editor:
    """A short search from the delta mapper's change to where the words point from the picture."""
    from guided.losses.turned import Turned

    return OptimiseEditor(
        generator=models.generator,
        scorer=models.scorer,
        objective=Objective.of(Turned(options.amount)),
        steps=options.refine_steps,
        update=lambda: styleclip_adam(options.refine_rate),
        extras={"towards": Towards(options, models)},
        begin=_delta(options, models),
        name="refine",
    )


class Towards:
    """Unit directions from what pictures show to a text, through the options' templates.

    With a neutral text they lead from there, the same for every picture.  With ``auto`` they lead,
    for each fact of the text, from what contradicts it and what CLIP sees in the picture (from
    brown hair, where it is brown, to pink hair); a text without facts of the drawn world leads from
    a portrait.

    Without templates in the options: those of the CLIP paper for CLIPs of photographs, the bare
    text for the portraits kit's own, which has learnt no others.
    """

    def __init__(self, options: Options, models: EditModels) -> None:
        from guided.zoo.kits import load_kit

        self._scorer = models.scorer
        drawn = self._scorer.name == load_kit("portraits")["scorer"]
        self._templates = options.template or (["{}"] if drawn else ["openai"])
        self._neutral = options.neutral
        self._known: dict[str, Tensor] = {}

    def __call__(self, text: str, seen: Tensor) -> Tensor:
        """Directions [B, D] for pictures with unit features ``seen`` [B, D]."""
        from guided.guidance.directions import text_direction
        from guided.portraits.rivals import rivals_by_fact

        target = self._said(text).to(seen)
        facts = rivals_by_fact(text) if self._neutral == AUTO else []
        if not facts:
            start = self._said(NEUTRAL if self._neutral == AUTO else self._neutral).to(seen)
            return text_direction(target, start)[None].expand(len(seen), -1)
        moves = torch.zeros_like(seen)
        for others in facts:
            told = torch.stack([_middle(self._said(other)) for other in others]).to(seen)
            moves = moves + _middle(target) - told[(seen @ told.T).argmax(1)]
        return F.normalize(moves, dim=1)

    def _said(self, text: str) -> Tensor:
        """The unit embeddings [T, D] of a text in every template."""
        from guided.scorers.zero_shot import prompts_of

        if text not in self._known:
            told = prompts_of([text], self._templates)[text]
            self._known[text] = self._scorer.embed_texts(told)
        return self._known[text]


def _middle(rows: Tensor) -> Tensor:
    """The unit mean [D] of unit vectors [T, D]."""
    return F.normalize(rows.mean(0), dim=0)


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
        self._neutral = NEUTRAL if neutral == AUTO else neutral
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

    def smallest(
        self, delta: Delta, grid: Sequence[float], keep: Callable[[Tensor], Tensor] | None = None
    ) -> list[float]:
        """The smallest strength of ``grid`` at which CLIP names the prompt, for each row.

        ``keep`` puts back what lies outside of a region.
        """
        return smallest_agreeing(self._models, delta, self.texts, grid, keep)

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
