"""The recipe keys of ``generate``; a method's own keys are a class of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import model_serializer

from guided.core.long_texts import LONG_TEXT_HELP, LongText
from guided.core.loss_tables import LossTable
from guided.tasks._generate_gan_options import GanKeys
from guided.tasks._generate_unclip_options import UnclipKeys
from guided.tasks.base import TaskOptions, argument, changed, option, recipe_only


class Shared(TaskOptions):
    """What every method knows."""

    prompts: list[str] = argument("what the pictures should show", min_length=1)
    method: str = option("which kind of generator", "diffusion")
    count: int = option("pictures for each prompt", 1, ge=1, le=10_000)
    batch: int = option("pictures that are made together", 8, ge=1, le=256)
    size: list[int] = option("height and width in pixels, or both at once", [], max_length=2)
    sheet: bool = option("also save all images on one sheet, a row for each prompt", False)
    scorer: str = option("the guiding CLIP", "")
    long_text: LongText = option(LONG_TEXT_HELP, "cut")
    identity: str | None = option("a face network's name or file, for the loss identity", None)
    perceptual: str | None = option(
        "a CLIP whose trunk compares images, or an LPIPS trunk's file, for the loss perceptual",
        None,
    )


class DiffusionKeys(TaskOptions):
    """What --method diffusion knows besides."""

    denoiser: str = option("a diffusion model's name or folder (diffusion)", "")
    scheduler: str = option("ddim, ddpm, dpm++, euler, ... (diffusion); empty: the model's own", "")
    steps: int = option("denoising steps (diffusion)", 20, ge=0, le=1000)
    cfg: float | None = option(
        "classifier-free guidance, 1 is none (diffusion); empty: what suits the model", None, ge=1
    )
    negative: str = option("what the pictures should not show (diffusion)", "")
    guide: list[str] = option(
        "what CLIP steers to: 'TEXT | TEXT::WEIGHT'; 'prompt' for the prompt itself (diffusion)", []
    )
    guide_image: list[Path] = option("pictures that CLIP steers to (diffusion)", [])
    guide_weight: list[float] = recipe_only("a weight for each guide_image", [])
    guide_scale: float = option("how far CLIP steers (diffusion)", 0.2, ge=0)
    unit: Literal["noise", "cfg", "raw"] = recipe_only("what guide_scale counts in", "noise")
    jacobian: Literal["stop", "exact"] = option(
        "the gradient at the clean picture, or through the model (diffusion)", "stop"
    )
    decode: Literal["vae", "tiny", "preview", "latent"] | None = option(
        "how CLIP sees the unfinished picture (diffusion); empty: the latent scorer's way where "
        "there is one, else by the decoder", None,
    )  # fmt: skip
    every: int = option("guide every so many steps (diffusion)", 1, ge=1)
    window: tuple[float, float] = recipe_only("the part of the steps that is guided", (0.0, 1.0))
    recurrence: int = option("visits of each guided step (diffusion)", 1, ge=1, le=100)
    cutouts: int = option(
        "random parts of the picture CLIP sees; 0: the whole (diffusion)", 0, ge=0
    )
    eta: float = recipe_only("noise of ddim's steps, 0 none, 1 as ddpm", 0.0, ge=0, le=1)
    loss: list[LossTable] = recipe_only("further losses to steer by", [])


class Options(UnclipKeys, GanKeys, DiffusionKeys, Shared):
    """The recipe keys of ``generate``."""

    @model_serializer(mode="wrap")
    def _said(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The keys without those of other methods, where these have their defaults."""
        table, foreign = dump(self), foreign_keys(self.method)
        given = changed(self, foreign)
        return {key: value for key, value in table.items() if key not in foreign or key in given}


def foreign_keys(method: str) -> frozenset[str]:
    """The keys that only other methods have; none where there is no such method."""
    try:
        own = getattr(importlib.import_module(f"guided.tasks._generate_{method}"), "OWN", None)
    except ModuleNotFoundError:
        own = None
    every = Options.model_fields.keys() - Shared.model_fields.keys()
    return frozenset() if own is None else frozenset(every - own)
