"""What all methods share that move a latent of StyleGAN2: inversion, changes, strengths."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator as Stream
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from guided.core.keys import option, recipe_only
from guided.core.run import Step
from guided.editing.base import Editor, EditState, Sources
from guided.errors import CannotDo, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

    from guided.core.delta import Delta
    from guided.core.protocols import Latent
    from guided.generators.stylegan2 import Space
    from guided.models import Models

Inversion = Literal["encoder", "optimise", "both"]


class LatentEditor(Editor):
    """A method that proposes, for each row and its prompt, a change of the generator's latent.

    Strength s shows start + s * change, so that no strength needs another search.
    """

    draws: ClassVar[str] = "generator"
    tried: ClassVar[Sequence[float]] = tuple(i / 10 for i in range(1, 23))
    has_opposite: ClassVar[bool] = True

    invert: Inversion = option("how an image's latent is found", "encoder")
    invert_steps: int = option("steps of the search for an image's latent", 300, ge=1)
    truncation: float = recipe_only("how far random portraits stray from the mean", 0.7, ge=0)

    @property
    def wanted_space(self) -> Literal["auto", "w", "s"]:
        """The space to search in; auto: W+ unless a saved latent has none."""
        return "auto"

    def size(self, models: Models) -> int | None:
        """The side of the generator's images."""
        return models.generator.size

    @abstractmethod
    def propose(self, state: EditState, prompts: Sequence[str]) -> Stream[Step[Any], None, Delta]:
        """The changes that the prompts ask for, a row each."""

    def start(self, sources: Sources) -> Stream[Step[Any], None, EditState]:
        """The latents of all rows, in one space: saved ones, random ones, or those of images."""
        saved = list(sources.latents) or [None] * len(sources.seeds)
        fresh = [i for i, latent in enumerate(saved) if latent is None]
        place, generator = sources.models.device.torch, sources.models.generator
        latents: dict[int, Latent] = {
            i: {name: leaf.to(place) for name, leaf in latent.items()}
            for i, latent in enumerate(saved)
            if latent is not None
        }
        if fresh:
            new = yield from self._fresh(sources, fresh)
            for row, i in enumerate(fresh):
                latents[i] = {name: leaf[row : row + 1] for name, leaf in new.items()}
        ordered = [latents[i] for i in range(len(saved))]
        space = choose_space(self.wanted_space, ordered)
        state = EditState.of(sources)
        state.known["start"] = stacked([generator.in_space(each, space) for each in ordered])
        return state

    def _fresh(self, sources: Sources, rows: Sequence[int]) -> Stream[Step[Any], None, Latent]:
        import torch

        pictures = [sources.pictures[row] for row in rows]
        images = [each for each in pictures if each is not None]
        if not images:
            seeds, generator = sources.seeds[rows], sources.models.generator
            return generator.start(seeds, truncation=self.truncation)
        latents = yield from inverted(
            sources.models, torch.cat(images), self.invert, self.invert_steps
        )
        return latents

    def render(
        self, state: EditState, prompts: Sequence[str], strength: float
    ) -> Stream[Step[Any], None, Tensor]:
        """The images of the changes at a strength: one pass of the generator, no new search."""
        from guided.guidance.edit import redraw

        change = yield from self.change_of(state, prompts)
        return redraw(state.models.generator, change, strength)

    def change_of(self, state: EditState, prompts: Sequence[str]) -> Stream[Step[Any], None, Delta]:
        """The changes of all rows, each searched once."""
        from guided.core.delta import Delta

        keys = [("change", row, prompt) for row, prompt in zip(state.rows, prompts, strict=True)]
        if any(key not in state.known for key in keys):
            proposed = yield from self.propose(state, prompts)
            state.known.update((key, proposed.row(i)) for i, key in enumerate(keys))
        rows: list[Delta] = [state.known[key] for key in keys]
        start, change = (
            stacked(leaves) for leaves in zip(*((d.start, d.change) for d in rows), strict=True)
        )
        return Delta(start, change, rows[0].method)

    def codes(self, state: EditState, space: Space) -> Latent:
        """The latents that the rows start from, in a space."""
        start: Latent = state.known["start"]
        picked = {name: state.picked(leaf) for name, leaf in start.items()}
        return state.models.generator.in_space(picked, space)

    def rendered_features(self, state: EditState, space: Space) -> Tensor:
        """The unit embeddings [B, D] of the start as the generator renders it."""
        import torch

        def embed() -> Tensor:
            with torch.no_grad():
                drawn = state.models.generator.render(self.codes(state.every, space))
                state.known["drawn"] = drawn
                features: Tensor = state.models.scorer.embed_images(drawn)
            return features

        return state.picked(state.once("drawn features", embed))


class SavedChange(LatentEditor):
    """The change of an earlier edit, drawn again."""

    needs_prompt: ClassVar[bool] = False

    def propose(self, state: EditState, prompts: Sequence[str]) -> Stream[Step[Any], None, Delta]:
        """The changes that the rows were saved with.

        Raises:
            CannotDo: a row without a saved change.
        """
        from guided.core.delta import Delta

        yield from ()
        changes = [state.sources.changes[row] for row in state.rows]
        saved = [each for each in changes if each is not None and each.change]
        if len(saved) < len(state.rows):
            raise CannotDo(
                "Only pictures of an earlier edit can be drawn again at another strength.",
                hint="Give --prompt to make a new edit.",
            )
        place = state.models.device.torch
        parts = [stacked([d.start for d in saved]), stacked([d.change for d in saved])]
        start, change = ({name: leaf.to(place) for name, leaf in p.items()} for p in parts)
        return Delta(start, change, saved[0].method)


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


def inverted(
    models: Models, images: Tensor, how: Inversion, steps: int
) -> Stream[Step[Any], None, Latent]:
    """The latents of images [B, 3, size, size], yielding Steps where it is a search."""
    generator = models.generator
    if how == "optimise":
        start = generator.middle(len(images))
    else:
        images = images.to(models.device.torch)
        start = models.inverter.invert(images)
        generator.render({name: leaf[:1] for name, leaf in start.items()})  # fits the generator?
        yield Step(1, 1, "invert")
    if how == "encoder":
        return start
    return (yield from search(models, start, images.to(models.device.torch), steps))


def search(
    models: Models, start: Latent, images: Tensor, steps: int
) -> Stream[Step[Any], None, Latent]:
    """The latents near ``start`` that best redraw the images [B, 3, size, size].

    Source: Karras et al. 2020 (StyleGAN2), appendix D; here in W+ and without noise maps.
    """
    from guided.core.objective import Objective
    from guided.guidance.edit import LatentSearch
    from guided.losses.masked_l1 import MaskedL1
    from guided.losses.perceptual import Perceptual

    inversion = LatentSearch(
        generator=models.generator,
        scorer=None,
        objective=Objective.of(Perceptual(), 2.0 * MaskedL1()),
        steps=steps,
        models={"perceptual": models.perceptual},
        extras={"target": images},
        name="invert",
    )
    delta = yield from inversion.propose(start, [""] * images.shape[0])
    return delta.at(1.0)
