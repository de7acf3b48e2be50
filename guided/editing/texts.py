"""What texts say to edits: directions in CLIP's space, what a text competes with, agreement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.prompts import embed_prompts, parse
from guided.core.world import NO_WORLD, World, contrasts
from guided.editing.base import AUTO, Sources
from guided.guidance.directions import stylespace_direction
from guided.models import Models


class CachedTexts:
    """A scorer that embeds each list of texts once; a list is one batch, to the same bits."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self._known: dict[tuple[str, ...], Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width] of texts."""
        key = tuple(texts)
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = self._scorer.embed_texts(list(key))
        return self._known[key]


def source_text(prompt: str, features: Tensor, scorer: Any, world: World) -> str:
    """What an image shows in place of what a prompt asks for: its facts as the CLIP sees them.

    ``features`` [D] is the image's unit embedding.  A prompt without facts of the ``world`` has no
    counterpart: the empty text.
    """
    text, count = prompt, len(world.contrast_prompts(prompt))
    for fact in range(count):
        others = world.contrast_prompts(text)
        if len(others) != count:
            break
        embedded = scorer.embed_texts(others[fact]).to(features)
        text = others[fact][int((embedded @ features).argmax())]
    return text if count else ""


class TextDirections:
    """Unit directions from what images show to a text, through templates.

    With a neutral text they lead from there, the same for every image.  With ``auto`` they lead,
    for each fact of the text that the world knows, from its contrast prompt that CLIP sees in the
    image (from brown hair, where it is brown, to pink hair); else from the world's neutral text.

    Without ``templates``: those of the world for its own scorer, the ensemble of the CLIP paper for
    others.
    """

    def __init__(self, sources: Sources, templates: Sequence[str] = ()) -> None:
        models = sources.models
        self._scorer, self._world = sources.scorer, models.world
        own = self._scorer.name == models.kit.get("scorer")
        self._templates = templates or list((self._world if own else NO_WORLD).templates)
        self._neutral = sources.neutral

    def __call__(self, text: str, features: Tensor) -> Tensor:
        """Directions [B, D] for images with unit features [B, D]."""
        target = self._embedded(text).to(features)
        facts = self._world.contrast_prompts(text) if self._neutral == AUTO else []
        if not facts:
            neutral = self._world.neutral if self._neutral == AUTO else self._neutral
            start = self._embedded(neutral).to(features)
            return stylespace_direction(target, start)[None].expand(len(features), -1)
        moves = torch.zeros_like(features)
        for others in facts:
            means = torch.stack([_mean(self._embedded(other)) for other in others]).to(features)
            moves = moves + _mean(target) - means[(features @ means.T).argmax(1)]
        return F.normalize(moves, dim=1)

    def _embedded(self, text: str) -> Tensor:
        """The unit embeddings [T, D] of a text in every template."""
        from guided.scorers.zero_shot import prompts_of

        embedded: Tensor = self._scorer.embed_texts(prompts_of([text], self._templates)[text])
        return embedded


def _mean(rows: Tensor) -> Tensor:
    """The unit mean [D] of unit vectors [T, D]."""
    return F.normalize(rows.mean(0), dim=0)


@dataclass(frozen=True)
class PromptTexts:
    """Zero-shot questions: for each row its prompt, and what else its image may show.

    ``prompts`` are unit embeddings [B, D]; ``others`` has for each row those of the texts that the
    prompt competes with, [R, D].
    """

    prompts: Tensor
    others: Sequence[Tensor]

    def agrees(self, row: int, features: Tensor) -> bool:
        """Whether the image with unit features [D] shows the prompt rather than the others."""
        return bool(features @ self.prompts[row] > (self.others[row] @ features).max())


class ClipEditMetrics:
    """How the guiding CLIP sees the edits of some prompts, beside what else could be shown."""

    def __init__(self, sources: Sources, prompts: Sequence[str]) -> None:
        self._models: Models = sources.models
        self._sources = sources
        world = sources.models.world
        self._neutral = world.neutral if sources.neutral == AUTO else sources.neutral
        self._prompts = prompts

    @cached_property
    def texts(self) -> PromptTexts:
        """The prompts, and for each the neutral text and those that say something else of it."""
        known = {prompt: self._wanted(prompt) for prompt in dict.fromkeys(self._prompts)}
        others = {prompt: self._others(prompt) for prompt in known}
        wanted = torch.cat([known[prompt] for prompt in self._prompts])
        return PromptTexts(wanted, [others[prompt] for prompt in self._prompts])

    def _wanted(self, prompt: str) -> Tensor:
        each, weights = embed_prompts(self._sources.scorer, [prompt])
        return F.normalize((weights[..., None] * each).sum(1), dim=1)

    def _others(self, prompt: str) -> Tensor:
        parts = parse(prompt)
        alone = parts[0][0] if len(parts) == 1 and parts[0][1] > 0 else ""
        others = contrasts(self._models.world, alone)
        embedded: Tensor = self._sources.scorer.embed_texts([self._neutral, *others])
        return embedded

    def figures(
        self,
        before: Tensor,
        after: Tensor,
        old: Tensor | None = None,
        new: Tensor | None = None,
    ) -> list[dict[str, Any]]:
        """For each row: the cosine with the prompt before and after, the gain, and agreement.

        ``old`` and ``new`` are the embeddings of both, where they are known.
        """
        if not all(self._prompts):
            return [{} for _ in self._prompts]
        embed: Callable[[Tensor], Tensor] = self._models.scorer.embed_images
        with torch.no_grad():
            old = embed(before.clamp(0, 1)) if old is None else old
            new = embed(after.clamp(0, 1)) if new is None else new
        rows: list[dict[str, Any]] = []
        for i, wanted in enumerate(self.texts.prompts):
            was, now = float(old[i] @ wanted), float(new[i] @ wanted)
            rows.append(
                {
                    "clip_before": was,
                    "clip_after": now,
                    "clip_gain": now - was,
                    "agrees": self.texts.agrees(i, new[i]),
                }
            )
        return rows
