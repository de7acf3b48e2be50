"""The recipe keys of ``edit``."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

from guided.core.files import pictures_in
from guided.tasks._edit_diffusion_options import DiffusionKeys, DiffusionMethod
from guided.tasks._edit_inputs import Faces
from guided.tasks._edit_rows import Inversion
from guided.tasks._losses import LossTable
from guided.tasks.base import TaskOptions, argument, option, recipe_only

#: The neutral text that stands for what CLIP sees.
AUTO = "auto"
#: What the strength ``auto`` chooses from.
STRENGTHS = tuple(i / 10 for i in range(1, 23))

#: The methods that move a latent of StyleGAN2.
LatentMethod = Literal["optimise", "direction", "mapper", "delta", "refine"]


class Options(DiffusionKeys, TaskOptions):
    """The recipe keys of ``edit``."""

    images: list[Path] = argument(
        "pictures, folders of them or saved latents; none edits random portraits", []
    )
    prompt: list[str] = option("what to change to, as 'TEXT' or 'TEXT | TEXT::WEIGHT'", [])
    method: Literal["auto", LatentMethod, DiffusionMethod] = option(
        "how to find the change; auto: delta where the kit has such a mapper, else optimise", "auto"
    )
    strength: float | Literal["auto"] = option(
        "0 is the original, 1 the edit, negative the opposite; auto the least CLIP agrees with", 1.0
    )
    space: Literal["auto", "w", "s"] = option("where to search: W+ or StyleSpace", "auto")
    steps: int = option("steps of the search (optimise)", 100, ge=1, le=10_000)
    rate: float = option("step size of the search (optimise)", 0.1, gt=0)
    count: int = option("random portraits when no picture is given", 1, ge=1, le=256)
    mask: Path | None = option("picture that is white where the edit may change things", None)
    landmarks: list[str] = option("4 points of the face, x,y,... or a .json file, per picture", [])
    face: int | None = option("which face of a landmarks file, from 1", None, ge=1)
    faces: Faces = option("aligned: the pictures are faces cut out FFHQ's way", "auto")
    invert: Inversion = option("how a picture's latent is found", "encoder")
    invert_steps: int = option("steps of the search for a picture's latent", 300, ge=1)
    paste: Literal["replace", "difference"] = option(
        "how a face goes back into its photo", "replace"
    )
    strip: bool = option("also save before and after side by side", False)
    sweep: list[float] = option("also save a sheet of these strengths", [])
    gif: int = option("also save an animation of so many frames", 0, ge=0, le=200)
    batch: int = option("edits that are searched together", 8, ge=1, le=256)
    generator: str = option("a generator's name or file", "")
    scorer: str = option("the guiding CLIP", "")
    identity: str = option("a face network's name or file", "")
    inverter: str = option("an inversion encoder's name or file", "")
    perceptual: str = option("a CLIP whose trunk compares pictures, or an LPIPS trunk's file", "")
    mapper: str = option("a mapper's name or file (mapper)", "")
    delta: str = option("a delta mapper's name or file (delta, refine)", "")
    statistics: str = option("channel statistics, such as fs3.npy (direction)", "")
    neutral: str = option(
        "what the pictures show, in words; auto: what CLIP sees that contradicts the prompt", AUTO
    )
    template: list[str] = option(
        "sentences with {} for a text (direction, delta, refine, turn)", []
    )
    alpha: float = recipe_only("factor of the change (direction)", 4.1)
    beta: float = recipe_only("cosine below which a channel is left alone (direction)", 0.15, ge=0)
    amount: float = recipe_only("how far to turn in CLIP's space (refine)", 0.6, gt=0)
    refine_steps: int = recipe_only("steps of the search behind the mapper (refine)", 30, ge=1)
    refine_rate: float = recipe_only("its step size", 0.03, gt=0)
    preprocess: Literal["clip", "styleclip"] = recipe_only("how CLIP sees the picture", "clip")
    truncation: float = recipe_only("how far random portraits stray from the mean", 0.7, ge=0)
    keep_identity: float = recipe_only("weight of the loss identity", 0.0, ge=0)
    near: float = recipe_only("weight of the loss latent_l2", 0.002, ge=0)
    keep_outside: float = recipe_only("weight of the loss masked_l1, with a mask", 10.0, ge=0)
    loss: list[LossTable] = recipe_only("losses in place of the usual ones", [])


def settled(options: Options, kit: Container[str]) -> Options:
    """The options with the method that ``auto`` stands for.

    That is ``delta`` where one is named, or ``kit`` has that role, for its own generator
    and CLIP, and no losses are given for a search; else ``optimise``.
    """
    if options.method != "auto":
        return options
    own = options.generator or options.scorer
    mapped = options.delta or (not own and "delta" in kit)
    method = "delta" if mapped and not options.loss else "optimise"
    return options.model_copy(update={"method": method})


def spread(files: Sequence[Path]) -> list[Path]:
    """The files, with the pictures of a folder in the place of the folder.

    Raises:
        UsageError: a folder without pictures.
    """
    parts = (pictures_in(file) if file.is_dir() else [file] for file in files)
    return [file for part in parts for file in part]
