"""Latent diffusion models of any family: folders of diffusers' form, prompts bound, schedulers.

A family (Stable Diffusion, SDXL, PixArt ...) is one file behind the protocol of ``base``;
everything else here is the same for all of them.
"""

from guided.generators.diffusion.base import Conditioning, Family, PromptBatch
from guided.generators.diffusion.families import families, register
from guided.generators.diffusion.loading import check_weights, load_diffusion, quiet
from guided.generators.diffusion.model import BoundDiffusion, Diffusion
from guided.generators.diffusion.pipeline import GuidedPipeline
from guided.generators.diffusion.portrait_folder import load_own, parts_of
from guided.generators.diffusion.schedulers import scheduler_of

__all__ = [
    "BoundDiffusion",
    "Conditioning",
    "Diffusion",
    "Family",
    "GuidedPipeline",
    "PromptBatch",
    "families",
    "check_weights",
    "load_diffusion",
    "load_own",
    "parts_of",
    "quiet",
    "register",
    "scheduler_of",
]
