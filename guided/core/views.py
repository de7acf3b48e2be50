"""How a scorer sees a candidate: through its own preprocessing, or through StyleCLIP's."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from guided.core.boxes import box_resize
from guided.core.objective import Candidate
from guided.core.protocols import Scorer
from guided.errors import CannotDo

View = Literal["clip", "styleclip"]


def embed_candidate(candidate: Candidate, scorer: Scorer, view: View = "clip") -> Tensor:
    """The unit embedding [B, D] of a candidate's picture.

    "clip" is right: the scorer's own antialiased resize and normalisation of values in [0, 1].
    "styleclip" is what the public StyleCLIP does: box resize, values in [-1, 1], no mean and
    standard deviation; it is kept to agree with that program's numbers.

    Raises:
        CannotDo: "styleclip" with a scorer that does not state its size, mean and deviation.
    """
    if view == "clip":
        return candidate.embed(scorer)
    return scorer.embed_images(bare_pixels(scorer, candidate.image))


def bare_pixels(scorer: Scorer, images: Tensor) -> Tensor:
    """Pictures that a scorer's normalisation turns into [-1, 1] values: [B, 3, size, size].

    The scorer's ``preprocess`` must state ``size`` (height, width), ``mean`` and ``std``.
    """
    stated: Any = getattr(scorer, "preprocess", None)
    if not all(hasattr(stated, name) for name in ("size", "mean", "std")):
        raise CannotDo(
            f"The scorer {scorer.name!r} does not state its size, mean and deviation, which "
            "preprocess = 'styleclip' has to undo.",
            hint="Use preprocess = 'clip'.",
        )
    signed = box_resize(2 * images - 1, tuple(stated.size))
    mean, std = signed.new_tensor(stated.mean), signed.new_tensor(stated.std)
    return signed * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
