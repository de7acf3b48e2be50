"""The kit's scorer of latents, where a diffusion model's unfinished pictures need no decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guided.errors import CannotDo, CorruptWeights, MissingWeights

if TYPE_CHECKING:
    from guided.generators.diffusion import Diffusion
    from guided.scorers.latent import LatentClip
    from guided.tasks.base import Workbench


def latent_scorer_of(
    model: Diffusion, teacher: str, bench: Workbench, *, asked: bool, chosen: bool
) -> LatentClip | None:
    """The kit's latent scorer, which learnt from the guiding CLIP and from these latents.

    ``teacher`` is that CLIP's fingerprint.  None unless it is ``asked`` for, or nobody has
    ``chosen`` a model or another way to look, and it is here and that CLIP's.

    Raises:
        CannotDo: it is asked for, and the kit names none, or it learnt from other latents than
            this model's.
        MissingWeights: it is asked for, and not on this computer.
        CorruptWeights: it is asked for, and learnt from another CLIP.
    """
    from guided.scorers.latent import load_latent_scorer

    wanted = bench.kit.get("latent_scorer", "")
    fits = bool(wanted) and model.pipe.family == "own"
    if asked and not fits:
        raise CannotDo("This model has no scorer of latents.", hint="Take --decode tiny or vae.")
    if not asked and (chosen or not fits):
        return None
    try:
        return load_latent_scorer(wanted, teacher, bench.device)
    except (MissingWeights, CorruptWeights):
        if asked:
            raise
        return None
