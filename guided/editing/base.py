"""The contract of an editing method: ``start`` once for some images, ``render`` for each prompt.

What does not depend on the strength is computed once and kept in the ``EditState``: embeddings,
latents, directions, trajectories.  Nothing heavy is imported at the top of these files, so that
help and errors of recipes stay quick.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from collections.abc import Generator as Stream
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from guided.core.loss_tables import LossTable

if TYPE_CHECKING:
    from torch import Tensor

    from guided.core.delta import Delta
    from guided.core.objective import Objective
    from guided.core.protocols import Latent
    from guided.core.run import Step
    from guided.core.seeds import Seeds
    from guided.models import Models

ValueT = TypeVar("ValueT")
#: The neutral text that stands for what CLIP sees.
AUTO = "auto"


@dataclass(frozen=True)
class Sources:
    """What is edited, B rows, and the models to edit it with.

    ``pictures`` are [1, 3, S, S] in [0, 1], or None where a latent or a seed says what to begin
    with; ``changes`` are saved edits, each with the ``strength`` at which it begins.  ``mask``
    [B, 1, S, S] is 1 where rows may change; ``neutral`` says what the images show (``auto``: what
    CLIP sees that contradicts the prompt); ``losses`` are followed in place of the usual ones.
    """

    pictures: Sequence[Tensor | None]
    models: Models
    seeds: Seeds
    latents: Sequence[Latent | None] = ()
    changes: Sequence[Delta | None] = ()
    mask: Tensor | None = None
    neutral: str = AUTO
    losses: Sequence[LossTable] = ()

    @property
    def scorer(self) -> Any:
        """The guiding CLIP, whose embeddings of texts are kept for the whole run."""
        from guided.editing.texts import CachedTexts

        scorer = self.models.scorer
        return self.models.once(("texts", scorer.name), lambda: CachedTexts(scorer))


@dataclass(frozen=True)
class EditState:
    """What an editor knows of some images, for all prompts and strengths.

    ``rows`` are the images that the rows of a batch are of: one may come several times, with
    several prompts.  ``known`` is shared by all the states of the same images.
    """

    sources: Sources
    rows: tuple[int, ...]
    known: dict[Hashable, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, sources: Sources) -> EditState:
        """The state of all images, of which nothing is known yet."""
        return cls(sources, tuple(range(len(sources.seeds))))

    def of_rows(self, rows: Sequence[int]) -> EditState:
        """The same knowledge for some of the rows, in that order."""
        return replace(self, rows=tuple(self.rows[row] for row in rows))

    @property
    def every(self) -> EditState:
        """The same knowledge for all images, each once."""
        return replace(self, rows=tuple(range(len(self.sources.seeds))))

    def once(self, key: Hashable, make: Callable[[], ValueT]) -> ValueT:
        """What is known under a key, made now where it was not yet."""
        if key not in self.known:
            self.known[key] = make()
        value: ValueT = self.known[key]
        return value

    def picked(self, values: Tensor) -> Tensor:
        """Of one value for each image those of the state's rows."""
        return values if self.rows == tuple(range(len(values))) else values[list(self.rows)]

    @property
    def models(self) -> Models:
        """The models of the run."""
        return self.sources.models

    @property
    def images(self) -> Tensor:
        """The images of the rows, [B, 3, S, S] in [0, 1]."""
        return self.picked(self.once("images", self._stacked))

    def _stacked(self) -> Tensor:
        import torch

        return torch.cat([each for each in self.sources.pictures if each is not None])

    @property
    def features(self) -> Tensor:
        """The unit embeddings [B, D] of the images by the guiding CLIP."""
        import torch

        def embed() -> Tensor:
            with torch.no_grad():
                features: Tensor = self.models.scorer.embed_images(self.every.images)
            return features

        return self.picked(self.once("features", embed))

    def features_of(self, images: Tensor) -> Tensor | None:
        """The embeddings of rendered images, where they are the state's own to the bit."""
        for pixels in ("images", "drawn"):
            known = self.known.get(pixels)
            if known is not None and self.picked(known).equal(images):
                return (
                    self.features
                    if pixels == "images"
                    else self.picked(self.known["drawn features"])
                )
        return None

    @property
    def seeds(self) -> Seeds:
        """A seed for each row."""
        return self.sources.seeds[self.rows]

    @property
    def mask(self) -> Tensor | None:
        """The mask [B, 1, S, S] of the rows, where there is one."""
        return None if self.sources.mask is None else self.picked(self.sources.mask)

    def change(self, row: int, prompt: str) -> Delta | None:
        """The change of latents that was found for a row and a prompt, where there is one."""
        change: Delta | None = self.known.get(("change", self.rows[row], prompt))
        return change


class Editor(BaseModel):
    """An editing method; its fields are its options, a table under its name in recipes.

    ``draws`` is the role of the model that draws ("generator", "denoiser", "" for none).  ``tried``
    are the strengths that ``auto`` tries; ``has_opposite`` says that strengths below 0 lead the
    other way, ``needs_prompt`` that it is told what to change to, ``needs_mask`` where.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    draws: ClassVar[str] = ""
    tried: ClassVar[Sequence[float]] = (0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5)
    has_opposite: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = True
    needs_mask: ClassVar[bool] = False

    def roles(self) -> tuple[str, ...]:
        """The roles of the models that it needs besides the scorer and those of losses."""
        return (self.draws,) if self.draws else ()

    def size(self, models: Models) -> int | None:
        """The side of the images that it takes; None: any, one image at a time."""
        return None

    def usual_losses(self, *, masked: bool) -> list[LossTable] | None:
        """The [[loss]] tables that it follows by itself; None for one that follows none."""
        return None

    def start(self, sources: Sources) -> EditState | Stream[Step[Any], None, EditState]:
        """What there is to know of images before any prompt, perhaps yielding Steps."""
        return EditState.of(sources)

    @abstractmethod
    def render(
        self, state: EditState, prompts: Sequence[str], strength: float
    ) -> Tensor | Stream[Step[Any], None, Tensor]:
        """The images [B, 3, S, S] of the rows edited by a prompt each; 0 leaves them as they are.

        Raises:
            CannotDo: a prompt or an image that the method cannot serve.
        """

    def sweep(
        self, state: EditState, prompts: Sequence[str], strengths: Sequence[float]
    ) -> Stream[Step[Any], None, list[Tensor]]:
        """The images [B, 3, S, S] at several strengths; here one after another."""
        images = []
        for strength in strengths:
            rendered = yield from stepped(self.render(state, prompts, strength))
            images.append(rendered)
        return images

    def objective(self, sources: Sources) -> Objective:
        """The sum of the losses that are followed: those given, else its usual ones."""
        from guided.core.loss_tables import objective_of

        own = self.usual_losses(masked=sources.mask is not None) or []
        return objective_of(sources.losses or own)


def stepped(result: ValueT | Stream[Step[Any], None, ValueT]) -> Stream[Step[Any], None, ValueT]:
    """What ``start`` or ``render`` gives as a stream of Steps, also where it has none."""
    if isinstance(result, Stream):
        value = yield from result
        return value
    return result


def loss_table(kind: str, **keys: Any) -> LossTable:
    """A [[loss]] of a method's own."""
    return LossTable.model_validate({"kind": kind, **keys})
