"""Losses that add up: ``Clip("purple hair") + 0.1 * Identity() + 0.008 * LatentL2()``.

A loss is declared outside a loop and bound inside it: ``bind`` does the work that is needed once
(encode the prompts, keep the original's features), the bound loss gives one number a row at each
step.  Rows of a batch never mix: every bound loss returns [B].
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from guided.core.protocols import Latent, Scorer
from guided.errors import CannotDo, ShapeError

Modality = Literal["image", "latent", "text"]
Render = Callable[[Latent], Tensor]


class Candidate:
    """What a loss sees at one moment: a latent and, once touched, its picture.

    ``latent`` maps leaf names to [B, ...]; ``progress`` runs from 0 to 1; ``start`` is the
    candidate the loop began with (itself at the beginning).  ``image`` [B, 3, H, W] in [0, 1] is
    rendered at the first touch and kept, so a loop without an image loss never renders.
    """

    def __init__(
        self, latent: Latent, render: Render, progress: float = 0.0, start: Candidate | None = None
    ) -> None:
        self.latent = latent
        self.progress = progress
        self._render = render
        self._start = start
        self._embeddings: dict[int, tuple[Scorer, Tensor]] = {}

    @property
    def start(self) -> Candidate:
        """The candidate the loop began with."""
        return self._start if self._start is not None else self

    @cached_property
    def image(self) -> Tensor:
        """The picture [B, 3, H, W] in [0, 1] of this latent."""
        return self._render(self.latent)

    def embed(self, scorer: Scorer) -> Tensor:
        """The picture's unit embedding [B, D], computed once for each scorer."""
        key = id(scorer)
        if key not in self._embeddings:
            self._embeddings[key] = (scorer, scorer.embed_images(self.image))
        return self._embeddings[key][1]


@dataclass(frozen=True)
class LossContext:
    """What losses are bound to: the judge of the guidance, a prompt a row, and the beginning.

    ``models`` holds further named models a loss may ask for (``identity``, ``perceptual``, ...);
    ``extras`` holds plain inputs by name (masks, target pictures).
    """

    scorer: Scorer | None
    prompts: tuple[str, ...]
    start: Candidate
    models: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    def need_scorer(self, who: str) -> Scorer:
        """The scorer, or an error that names the loss that needs one."""
        if self.scorer is None:
            raise CannotDo(f"The loss {who!r} needs a scorer.", hint="Name one in the recipe.")
        return self.scorer

    @property
    def device(self) -> torch.device:
        """Where the loop runs: the device of its latents."""
        return next(iter(self.start.latent.values())).device

    def need_model(self, role: str, who: str) -> Any:
        """A named model, or an error that names the loss and the roles there are."""
        if role not in self.models:
            raise CannotDo(
                f"The loss {who!r} needs a model in the role {role!r}; "
                f"this loop has: {', '.join(sorted(self.models)) or 'none'}.",
                hint=f"Name one in the kit or with a recipe key {role}.",
            )
        return self.models[role]


BoundLoss = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Loss(ABC):
    """One term of an objective; its dataclass fields are its recipe keys.

    ``modality`` is what the loss looks at; ``needs`` are the roles of the models that ``bind``
    asks the context for ("scorer" is the guiding CLIP), which every loop loads beforehand.
    """

    modality: ClassVar[Modality] = "image"
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        """The name recipes use: the class name in snake case, also its file in guided/losses."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def bind(self, context: LossContext) -> BoundLoss:
        """Do the work needed once; return the function from a candidate to [B], less is better."""

    def __rmul__(self, weight: float) -> Objective:
        return Objective((Term(self, float(weight)),))

    __mul__ = __rmul__

    def __add__(self, other: Loss | Objective) -> Objective:
        return Objective.of(self) + other


@dataclass(frozen=True)
class Term:
    """A loss and its weight."""

    loss: Loss
    weight: float = 1.0


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses whose parts keep their names."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, *losses: Loss | Objective) -> Objective:
        """The sum of losses and objectives, each loss with weight 1."""
        terms: list[Term] = []
        for loss in losses:
            terms.extend(loss.terms if isinstance(loss, Objective) else (Term(loss),))
        return cls(tuple(terms))

    def __add__(self, other: Loss | Objective) -> Objective:
        return Objective.of(self, other)

    def __rmul__(self, weight: float) -> Objective:
        return Objective(tuple(Term(t.loss, t.weight * float(weight)) for t in self.terms))

    __mul__ = __rmul__

    def names(self) -> list[str]:
        """A name for each term: its kind, numbered where a kind comes twice."""
        kinds = [term.loss.kind for term in self.terms]
        return [
            kind if kinds.count(kind) == 1 else f"{kind}_{kinds[: i + 1].count(kind)}"
            for i, kind in enumerate(kinds)
        ]

    @property
    def needs(self) -> tuple[str, ...]:
        """The roles of the models that the losses need, each once."""
        return tuple(dict.fromkeys(role for term in self.terms for role in term.loss.needs))

    def bind(
        self, context: LossContext, modalities: Sequence[Modality] = ("image", "latent")
    ) -> BoundObjective:
        """The objective ready for a loop whose candidates offer these modalities.

        Raises:
            CannotDo: no loss at all, one that looks at something this loop does not have, or one
                that needs a model the context does not have.
        """
        if not self.terms:
            raise CannotDo("This objective has no loss.", hint="Give at least one.")
        for term in self.terms:
            if term.loss.modality not in modalities:
                raise CannotDo(
                    f"The loss {term.loss.kind!r} looks at {term.loss.modality}, "
                    f"but this loop offers {' and '.join(modalities)}."
                )
        bound = tuple(term.loss.bind(context) for term in self.terms)
        weights = tuple(term.weight for term in self.terms)
        return BoundObjective(tuple(self.names()), bound, weights)


@dataclass(frozen=True)
class BoundObjective:
    """Bound losses with names and weights; calling it gives the total [B] and its parts."""

    names: tuple[str, ...]
    losses: tuple[BoundLoss, ...]
    weights: tuple[float, ...]

    def __call__(self, candidate: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted total [B] and the unweighted parts, name -> [B].

        Raises:
            ShapeError: a loss that did not return one number a row.
        """
        parts: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name, loss, weight in zip(self.names, self.losses, self.weights, strict=True):
            value = loss(candidate)
            if value.ndim != 1:
                raise ShapeError(f"The loss {name!r} must return [B], not {list(value.shape)}.")
            parts[name] = value
            if weight != 0:
                total = weight * value if total is None else total + weight * value
        if total is None:
            rows = next(iter(parts.values())) if parts else torch.zeros(1)
            total = torch.zeros_like(rows)
        return total, parts
