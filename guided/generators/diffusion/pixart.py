"""PixArt-alpha and PixArt-sigma: a diffusion transformer told by a T5 text encoder.

Prompts are encoded by diffusers' own pipeline around the same parts.  Not offered are its
resolution bins.
Source: Chen et al. 2023 (PixArt-alpha); Chen et al. 2024 (PixArt-sigma).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guided.generators.diffusion.base import (
    ANY_TOKENIZER,
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

#: How many tokens of a prompt the transformer of a stock pipeline reads.
TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}


@dataclass(frozen=True)
class PixArtConditioning(Conditioning):
    """``shape`` [N, 3]: height, width and their ratio, for models that are told these."""

    shape: Tensor | None = None


class PixArt(Family[PixArtConditioning]):
    """PixArt as ``PixArtAlphaPipeline`` and ``PixArtSigmaPipeline`` run it."""

    name = "pixart"
    denoiser = "transformer"
    classes: ClassVar[Classes] = {
        "transformer": ("diffusers.PixArtTransformer2DModel",),
        "vae": VAE,
        "tiny": TINY,
        "text_encoder": ("transformers.T5EncoderModel",),
        "tokenizer": ("transformers.T5Tokenizer", "transformers.T5TokenizerFast", *ANY_TOKENIZER),
    }
    cfg = 4.5
    joins_windows = True
    text_width = "caption_channels"

    def settings(self, pipeline_class: str) -> dict[str, Any]:
        """How many tokens the folder's model reads."""
        limit = TOKENS.get(pipeline_class)
        return {} if limit is None else {"max_sequence_length": limit}

    def token_limit(self, pipe: GuidedPipeline) -> int:
        """How many tokens of a prompt the model reads."""
        return int(pipe.config.max_sequence_length)

    def normalize_prompt(self, text: str) -> str:
        """A prompt in lower case, as the stock pipelines tokenize it."""
        return super().normalize_prompt(text).lower()

    def encode_prompt(self, pipe: GuidedPipeline, batch: PromptBatch) -> PixArtConditioning:
        """Hidden states of T5 with their mask, and the size where the model is told it."""
        import diffusers

        stock = diffusers.PixArtAlphaPipeline(
            vae=pipe.vae, scheduler=pipe.scheduler, tokenizer=pipe.tokenizer,
            text_encoder=pipe.text_encoder, transformer=pipe.transformer,
        )  # fmt: skip
        text, mask, without, mask_without = stock_embeddings(
            pipe, stock, batch, none="", clean_caption=cleans_captions(),
            max_sequence_length=pipe.config.max_sequence_length,
        )  # fmt: skip
        if batch.negatives:
            text, mask = torch.cat([without, text]), torch.cat([mask_without, mask])
        shape = None
        if pipe.transformer.config.sample_size == 128:
            stated = [[*batch.size, batch.size[0] / batch.size[1]]]
            shape = torch.tensor(stated, dtype=text.dtype, device=text.device)
            shape = shape.repeat(len(text), 1)
        return PixArtConditioning(text, mask=mask, shape=shape)

    def predict(
        self, pipe: GuidedPipeline, x_t: Tensor, time: Any, conditioning: PixArtConditioning
    ) -> Tensor:
        """The transformer's output [N, C, h, w], without the variance that it may predict too."""
        times = torch.as_tensor(time, device=x_t.device).reshape(1).expand(len(x_t))
        added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        shape = conditioning.shape
        if shape is not None:
            added = {"resolution": shape[:, :2], "aspect_ratio": shape[:, 2:]}
        output = pipe.transformer(
            x_t, encoder_hidden_states=conditioning.text, timestep=times,
            encoder_attention_mask=conditioning.mask, added_cond_kwargs=added, return_dict=False,
        )[0]  # fmt: skip
        first: Tensor = output[:, : x_t.shape[1]]
        return first


def cleans_captions() -> bool:
    """Whether prompts are cleaned: the stock pipelines do so where these libraries are there."""
    return all(find_spec(each) for each in ("bs4", "ftfy"))


FAMILY = PixArt()
