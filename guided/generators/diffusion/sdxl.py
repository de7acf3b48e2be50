"""Stable Diffusion XL: a UNet told by two CLIP text encoders, and by the size of the image.

Prompts are encoded by diffusers' own pipeline around the same parts.  Not offered are its second
prompts, ``denoising_end``, and sizes other than those of the image that is made.
Source: Podell et al. 2023 (SDXL).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
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


@dataclass(frozen=True)
class SdxlConditioning(Conditioning):
    """``sizes`` [N, 6]: height, width, crop (top, left) and target (height, width)."""

    sizes: Tensor | None = None


class StableDiffusionXL(Family[SdxlConditioning]):
    """SDXL as ``StableDiffusionXLPipeline`` runs it."""

    name = "sdxl"
    denoiser = "unet"
    classes: ClassVar[Classes] = {
        "unet": ("diffusers.UNet2DConditionModel",),
        "vae": VAE,
        "tiny": TINY,
        "text_encoder": CLIP_TEXT,
        "tokenizer": (*CLIP_TOKENIZER, *ANY_TOKENIZER),
        "text_encoder_2": ("transformers.CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZER,
    }
    required = ("text_encoder_2",)
    cfg = 5.0
    joins_windows = True
    text_width = "cross_attention_dim"

    def encode_prompt(self, pipe: GuidedPipeline, batch: PromptBatch) -> SdxlConditioning:
        """Hidden states of both encoders side by side, the second's pooled text, and the sizes."""
        import diffusers

        stock = diffusers.StableDiffusionXLPipeline(
            vae=pipe.vae, scheduler=pipe.scheduler, tokenizer=pipe.tokenizer, unet=pipe.unet,
            text_encoder=pipe.text_encoder, text_encoder_2=pipe.text_encoder_2,
            tokenizer_2=pipe.tokenizer_2, add_watermarker=False,
            force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
        )  # fmt: skip
        found = stock_embeddings(pipe, stock, batch)
        text, without, pooled, pooled_without = found
        if batch.negatives:
            text = torch.cat([without, text])
            pooled = torch.cat([pooled_without, pooled])
        sizes = torch.tensor(
            [[*batch.size, 0, 0, *batch.size]], dtype=text.dtype, device=text.device
        )
        return SdxlConditioning(text, pooled=pooled, sizes=sizes.repeat(len(text), 1))

    def predict(
        self, pipe: GuidedPipeline, x_t: Tensor, time: Any, conditioning: SdxlConditioning
    ) -> Tensor:
        """The UNet's output [N, C, h, w]."""
        added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.sizes}
        output = pipe.unet(
            x_t, time, encoder_hidden_states=conditioning.text,
            encoder_attention_mask=conditioning.mask, added_cond_kwargs=added,
            return_dict=False,
        )[0]  # fmt: skip
        first: Tensor = output[:, : x_t.shape[1]]
        return first


FAMILY = StableDiffusionXL()
