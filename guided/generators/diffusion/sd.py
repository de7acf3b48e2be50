"""Stable Diffusion 1.x and 2.x: a UNet told by one CLIP text encoder, token by token.

Prompts are encoded by diffusers' own pipeline around the same parts, and what that corrects in old
folders is corrected here too.  Not offered are its ``clip_skip``, ``guidance_rescale`` and
IP-adapters: the values that leave these out are the ones that hold.
Source: Rombach et al. 2022 (latent diffusion).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from guided.generators.diffusion.base import (
    ANY_TOKENIZER,
    CLIP_TEXT,
    CLIP_TOKENIZER,
    TINY,
    VAE,
    Classes,
    Conditioning,
    Family,
    PromptBatch,
)
from guided.generators.diffusion.text import stock_embeddings

if TYPE_CHECKING:
    from guided.generators.diffusion.pipeline import GuidedPipeline


class StableDiffusion(Family[Conditioning]):
    """SD 1.x and 2.x as ``StableDiffusionPipeline`` runs them."""

    name = "sd"
    denoiser = "unet"
    classes: ClassVar[Classes] = {
        "unet": ("diffusers.UNet2DConditionModel",),
        "vae": VAE,
        "tiny": TINY,
        "text_encoder": CLIP_TEXT,
        "tokenizer": (*CLIP_TOKENIZER, *ANY_TOKENIZER),
    }
    cfg = 7.5
    joins_windows = True
    text_width = "cross_attention_dim"

    def prepare(self, pipe: GuidedPipeline) -> None:
        """Check the parts, and correct settings of old folders."""
        super().prepare(pipe)
        correct_legacy_config(pipe.scheduler, pipe.unet)

    def encode_prompt(self, pipe: GuidedPipeline, batch: PromptBatch) -> Conditioning:
        """The last hidden states of the text encoder."""
        import diffusers

        stock = diffusers.StableDiffusionPipeline(
            vae=pipe.vae, scheduler=pipe.scheduler, tokenizer=pipe.tokenizer, unet=pipe.unet,
            text_encoder=pipe.text_encoder, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        text, without = stock_embeddings(pipe, stock, batch)
        return Conditioning(torch.cat([without, text]) if batch.negatives else text)

    def predict(
        self, pipe: GuidedPipeline, x_t: Tensor, time: Any, conditioning: Conditioning
    ) -> Tensor:
        """The UNet's output [N, C, h, w]."""
        output = pipe.unet(
            x_t, time, encoder_hidden_states=conditioning.text,
            encoder_attention_mask=conditioning.mask, added_cond_kwargs=None,
            return_dict=False,
        )[0]  # fmt: skip
        first: Tensor = output[:, : x_t.shape[1]]
        return first


def correct_legacy_config(scheduler: Any, unet: Any) -> None:
    """Change settings of SD 1.x folders that its stock pipeline holds to be outdated.

    It counts time steps from 1 and does not clip x0, whatever the folder says, and takes images
    of folders that predate version 0.9 to be 512 pixels wide.
    """
    settings, wanted = dict(scheduler.config), {"steps_offset": 1, "clip_sample": False}
    changes = {key: wanted[key] for key in wanted if settings.get(key, wanted[key]) != wanted[key]}
    if changes:
        stated = [key for key in settings.get("_use_default_values", ()) if key not in changes]
        scheduler._internal_dict = FrozenDict(
            {**settings, **changes, "_use_default_values": stated}
        )
    side, version = unet.config.sample_size, str(unet.config.get("_diffusers_version", "1"))
    if _before_0_9(version) and isinstance(side, int) and side < 64:
        unet._internal_dict = FrozenDict({**unet.config, "sample_size": 64})


def _before_0_9(version: str) -> bool:
    parts = version.split(".")
    return parts[0] == "0" and len(parts) > 1 and parts[1].isdigit() and int(parts[1]) < 9


FAMILY = StableDiffusion()
