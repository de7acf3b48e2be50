"""The least strength at which CLIP sees what a prompt asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Stream
from typing import Any

import torch
from torch import Tensor

from guided.core.run import Step
from guided.editing.base import Editor, EditState, stepped
from guided.editing.texts import PromptTexts


def least_agreeing(
    editor: Editor,
    state: EditState,
    prompts: Sequence[str],
    texts: PromptTexts,
    finish: Callable[[Tensor], Tensor] | None = None,
    tried: Sequence[float] = (),
) -> Stream[Step[Any], None, tuple[list[float], Tensor, Tensor]]:
    """For each row the first strength at which CLIP names its prompt among the texts that it
    competes with, or the last that is ``tried`` where it never does; the images at those, and
    their unit embeddings [B, D].

    ``finish`` changes rendered images before they are looked at.
    """
    grid = tried or editor.tried
    chosen, waiting = [grid[-1]] * len(prompts), set(range(len(prompts)))
    images: Tensor | None = None
    embeddings: Tensor | None = None
    for strength in grid:
        rendered = yield from stepped(editor.render(state, prompts, strength))
        rendered = rendered if finish is None else finish(rendered)
        with torch.no_grad():
            features = state.models.scorer.embed_images(rendered)
        images = rendered.clone() if images is None else images
        embeddings = features.clone() if embeddings is None else embeddings
        for row in sorted(waiting):
            images[row], embeddings[row] = rendered[row], features[row]
            if texts.agrees(row, features[row]):
                chosen[row] = strength
                waiting.discard(row)
        if not waiting:
            break
    assert images is not None
    assert embeddings is not None
    return chosen, images, embeddings
