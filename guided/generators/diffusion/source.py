"""What edits ask of a pipeline: images encoded to latents, token ids, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guided.core.device import widened
from guided.errors import ShapeError
from guided.generators.diffusion.model import Diffusion
from guided.generators.diffusion.pipeline import GuidedPipeline
from guided.generators.diffusion.schedulers import is_flow


@torch.no_grad()
def encode_images(pipe: GuidedPipeline, images: Tensor) -> Tensor:
    """The likeliest latents [B, C, h, w], of unit scale, of pictures [B, 3, H, W] in [0, 1].

    Raises:
        ShapeError: sides that are not a multiple of the autoencoder's factor.
    """
    height, width = images.shape[2:]
    if height % pipe.factor or width % pipe.factor:
        raise ShapeError(
            f"Pictures of {width} x {height} pixels are not a multiple of {pipe.factor}."
        )
    found = pipe.vae.encode((2 * images - 1).to(pipe._execution_device, pipe.vae.dtype))
    own = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    return pipe.family.from_vae(pipe, widened(own))


def image_size(pipe: GuidedPipeline) -> int:
    """The side of the pictures that the model makes by itself."""
    return pipe.latent_shape()[1] * pipe.factor


def ddim_scheduler(model: Diffusion) -> Any:
    """A fresh scheduler whose steps can be walked either way."""
    return model.scheduler("flow" if is_flow(model.pipe.scheduler) else "ddim")


def attention_net(pipe: GuidedPipeline) -> Any:
    """The net of diffusers' whose attention reads the words."""
    return pipe.family.attention_net(pipe)


def token_ids(pipe: GuidedPipeline, texts: Sequence[str], length: int) -> list[list[int]]:
    """The tokens of texts, padded to ``length``, in the places where the denoiser sees them."""
    texts = [pipe.family.normalize_prompt(text) for text in texts]
    found = pipe.tokenizer(texts, padding="max_length", truncation=True, max_length=length)
    return [list(ids) for ids in found["input_ids"]]


def word_ids(pipe: GuidedPipeline, word: str) -> list[int]:
    """The tokens of a word within a text."""
    found = pipe.tokenizer([" ".join(word.split())], add_special_tokens=False)
    return list(found["input_ids"][0])
