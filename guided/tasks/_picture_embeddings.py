"""Whether a diffusion model can be told pictures, by the embeddings of a CLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guided.errors import CannotDo, CorruptWeights

if TYPE_CHECKING:
    from guided.generators.diffusion import Diffusion
    from guided.scorers.clip import ClipScorer
    from guided.tasks.base import Workbench


def check_embeddings(model: Diffusion, scorer: ClipScorer, denoiser: str, bench: Workbench) -> None:
    """Raise unless a model takes embeddings of pictures, and those of that CLIP.

    ``denoiser`` is the name that the model was opened by, empty for the kit's.

    Raises:
        CannotDo: it takes none.
        CorruptWeights: it takes those of another CLIP, by its hash.
    """
    from guided.generators.unclip import clip_of
    from guided.tasks._generate_unclip import decoder_folder

    if model.pipe.family != "own":
        raise CannotDo(
            f"The model {model.name!r} takes no embeddings of pictures.",
            hint="Take the shipped denoiser, or guided edit --method sdedit.",
        )
    learnt = clip_of(decoder_folder(denoiser, bench))
    if learnt and learnt != scorer.fingerprint:
        raise CorruptWeights(
            f"The denoiser takes embeddings of another CLIP than {scorer.name!r}: "
            f"{learnt[:16]}..., not {scorer.fingerprint[:16]}....",
            hint="Leave --scorer out, or name the CLIP that it was trained with.",
        )
