"""The recipe keys that ``edit`` knows for editing by diffusion."""

from __future__ import annotations

from typing import Literal

from guided.tasks.base import TaskOptions, option, recipe_only

#: The methods that denoise.
METHODS = ("sdedit", "inpaint", "ddim", "ddpm", "p2p", "directional", "turn")

DiffusionMethod = Literal["sdedit", "inpaint", "ddim", "ddpm", "p2p", "directional", "turn"]


class DiffusionKeys(TaskOptions):
    """What the methods of diffusion know besides."""

    denoiser: str = option("a diffusion model's name, or local-dir:FOLDER (diffusion)", "")
    denoise_steps: int = option("denoising steps (diffusion)", 30, ge=1, le=1000)
    noise: float | None = option(
        "the part of the denoising that is done again at strength 1; empty: what suits the method "
        "(diffusion)", None, ge=0, le=1,
    )  # fmt: skip
    cfg: float | None = option(
        "classifier-free guidance, 1 is none; empty: what suits the method (diffusion)", None, ge=1
    )
    attention: Literal["replace", "refine"] = option(
        "what new words do: take the place of others, or join them (p2p)", "refine"
    )
    reweight: list[str] = option("WORD=FACTOR: how much a word counts (p2p)", [])
    cross_share: float = recipe_only("part of the run with the source's word attention (p2p)", 0.8,
                                     ge=0, le=1)  # fmt: skip
    self_share: float = recipe_only("part of the run with the source's self-attention (p2p)", 0.2,
                                    ge=0, le=1)  # fmt: skip
    guide_scale: float = option("how far CLIP steers at each step (directional)", 0.2, ge=0)
    decode: Literal["vae", "tiny", "preview", "latent"] | None = option(
        "how CLIP sees the unfinished picture (directional); empty: the latent scorer's way where "
        "there is one, else by the decoder", None,
    )  # fmt: skip
