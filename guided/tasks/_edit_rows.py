"""From subjects to rows of a batch: start latents, and what every method shares about rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Generator as Stream
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from guided.core.run import Step
from guided.errors import ShapeError
from guided.tasks._edit_inputs import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from guided.core.editing import Delta
    from guided.core.protocols import Latent
    from guided.generators.stylegan2 import Space, StyleGan2
    from guided.tasks._edit_models import EditModels

Inversion = Literal["encoder", "optimise", "both"]


@dataclass(frozen=True)
class Texts:
    """Zero-shot questions: for each row its prompt, and what else its picture may show.

    ``prompts`` are unit embeddings [B, D]; ``others`` has for each row those of the texts that the
    prompt competes with, [R, D].
    """

    prompts: Tensor
    others: Sequence[Tensor]

    def agrees(self, row: int, seen: Tensor) -> bool:
        """Whether the picture with unit features [D] shows the prompt rather than the others."""
        return bool(seen @ self.prompts[row] > (self.others[row] @ seen).max())


def choose_space(wanted: str, latents: Sequence[Latent]) -> Space:
    """The asked-for space; "auto" is W+ unless one of the latents has no W+ code."""
    if wanted == "s" or (wanted == "auto" and any("w" not in latent for latent in latents)):
        return "s"
    return "w"


def stacked(latents: Sequence[Latent]) -> Latent:
    """One latent whose rows are those of all, in order.

    Raises:
        ShapeError: latents of different generators.
    """
    import torch

    names = sorted(latents[0])
    shapes = {
        tuple((name, *latent[name].shape[1:]) for name in sorted(latent)) for latent in latents
    }
    if len(shapes) > 1:
        raise ShapeError(
            "These latents have different shapes; they belong to different generators.",
            hint="Edit them one by one, each with its own generator.",
        )
    return {name: torch.cat([latent[name] for latent in latents]) for name in names}


def picked(latent: Latent, rows: Sequence[int]) -> Latent:
    """The given rows of a latent, in that order; a row may come several times."""
    return {name: leaf[list(rows)] for name, leaf in latent.items()}


def invert(
    models: EditModels, subjects: Sequence[Subject], how: Inversion, steps: int
) -> Stream[Step[Any], None, Latent]:
    """The latents of the subjects' pictures, yielding Steps where it is a search."""
    from guided.core.images import to_tensor

    pictures = [subject.picture for subject in subjects if subject.picture is not None]
    images = to_tensor(pictures).to(models.bench.device.torch)
    generator = models.generator
    if how == "optimise":
        start = generator.middle(len(pictures))
    else:
        start = models.inverter.invert(images)
        generator.render({name: leaf[:1] for name, leaf in start.items()})  # fits the generator?
        yield Step(1, 1, "invert")
    if how == "encoder":
        return start
    found = yield from search(models, start, images, steps)
    return found


def search(
    models: EditModels, start: Latent, images: Tensor, steps: int
) -> Stream[Step[Any], None, Latent]:
    """The latents near ``start`` that best redraw the pictures [B, 3, size, size].

    Source: Karras et al. 2020 (StyleGAN2), appendix D; here in W+ and without noise maps.
    """
    from guided.core.objective import Objective
    from guided.guidance.edit import OptimiseEditor
    from guided.losses.masked_l1 import MaskedL1
    from guided.losses.perceptual import Perceptual

    editor = OptimiseEditor(
        generator=models.generator,
        scorer=None,
        objective=Objective.of(Perceptual(), 2.0 * MaskedL1()),
        steps=steps,
        models={"perceptual": models.perceptual},
        extras={"target": images},
        name="invert",
    )
    delta = yield from editor.propose(start, [""] * images.shape[0])
    return delta.at(1.0)


def smallest_agreeing(
    models: EditModels,
    delta: Delta,
    texts: Texts,
    grid: Sequence[float],
    keep: Callable[[Tensor], Tensor] | None = None,
) -> list[float]:
    """For each row the first strength of ``grid`` at which CLIP names its prompt among the texts
    that it competes with, or the last of the grid where it never does.

    ``keep`` changes drawn pictures before they are looked at.
    """
    chosen = [grid[-1]] * delta.rows
    waiting = set(range(delta.rows))
    for strength in grid:
        seen = embed(models.generator, models.scorer, delta, strength, keep)
        for row in sorted(waiting):
            if texts.agrees(row, seen[row]):
                chosen[row] = strength
                waiting.discard(row)
        if not waiting:
            break
    return chosen


def embed(
    generator: StyleGan2,
    scorer: Any,
    delta: Delta,
    strength: float | Sequence[float],
    keep: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The unit embeddings [B, D] of a change's pictures at a strength."""
    import torch

    from guided.guidance.edit import redraw

    with torch.no_grad():
        images = redraw(generator, delta, strength)
        found: Tensor = scorer.embed_images(images if keep is None else keep(images))
    return found
