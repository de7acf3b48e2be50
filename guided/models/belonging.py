"""Models of a run that do not belong together are refused, before anything is made with them.

What is checked where a model is loaded (an autoencoder, a prior's CLIP) uses the same
``zoo.belonging.check_same``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from guided.errors import CannotDo
from guided.zoo.belonging import check_same

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.diffusion import Diffusion
    from guided.nets.delta import DeltaNet
    from guided.scorers.clip import ClipScorer
    from guided.scorers.latent import LatentClip


def check_directions(relevance: Tensor, scorer: ClipScorer, name: str) -> None:
    """Accept channel statistics [channels, D] of features as wide as the scorer's.

    Raises:
        CannotDo: features of another width.
    """
    if relevance.shape[1] != scorer.width:
        raise CannotDo(
            f"The statistics {name} are {relevance.shape[1]} wide, the scorer {scorer.name!r} "
            f"{scorer.width}: they were made with another CLIP."
        )


def check_delta(net: DeltaNet, scorer: ClipScorer, name: str) -> None:
    """Accept a delta mapper of features as wide as the scorer's.

    Raises:
        CannotDo: features of another width.
    """
    if net.embed != scorer.width:
        raise CannotDo(
            f"The delta mapper {name} was made for features of {net.embed} numbers; those of the "
            f"scorer {scorer.name!r} have {scorer.width}.",
            hint="Scorer, generator and delta mapper must belong together.",
        )


def check_latent_scorer(student: LatentClip, model: Diffusion, scorer: ClipScorer) -> None:
    """Accept a scorer of latents for a model's latents, with features as wide as the scorer's.

    Raises:
        CannotDo: latents of other channels, or features of another width.
    """
    reads, features = student.net.shape["channels"], student.net.shape["features"]
    made = int(model.pipe.vae.config.latent_channels)
    hint = "Take --decode tiny or vae, or a scorer of latents that was trained with both."
    if reads != made:
        raise CannotDo(
            f"The scorer of latents reads {reads} channels; the model {model.name!r} makes {made}.",
            hint=hint,
        )
    if features != scorer.width:
        raise CannotDo(
            f"The scorer of latents has features of {features} numbers; those of the scorer "
            f"{scorer.name!r} have {scorer.width}.",
            hint=hint,
        )


def check_image_embeddings(model: Diffusion, scorer: ClipScorer, learnt: Callable[[], str]) -> None:
    """Accept a denoiser that takes embeddings of images, those of the scorer.

    ``learnt`` gives the hash of the CLIP whose embeddings it takes ("": not known).

    Raises:
        CannotDo: it takes none.
        CorruptWeights: it takes those of another CLIP.
    """
    if not model.pipe.family.takes_image_embeddings:
        raise CannotDo(
            f"The model {model.name!r} takes no embeddings of pictures.",
            hint="Take the shipped denoiser, or guided edit --method sdedit.",
        )
    check_same(
        f"The denoiser takes embeddings of another CLIP than {scorer.name!r}",
        learnt() or scorer.fingerprint, scorer.fingerprint,
        "Leave --scorer out, or name the CLIP that it was trained with.",
    )  # fmt: skip
