"""What edits ask of a pipeline: the latents of pictures, the tokens of words, its attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guided.errors import ShapeError
from guided.generators.diffusion import Diffusion, is_flow
from guided.generators.diffusion_pipeline import GuidedPipeline


@torch.no_grad()
def latents_of(pipe: GuidedPipeline, images: Tensor) -> Tensor:
    """The likeliest latents [B, C, h, w], of unit scale, of pictures [B, 3, H, W] in [0, 1].

    Raises:
        ShapeError: sides that are not a multiple of the autoencoder's factor.
    """
    height, width = images.shape[2:]
    if height % pipe.factor or width % pipe.factor:
        raise ShapeError(
            f"Pictures of {width} x {height} pixels are not a multiple of {pipe.factor}."
        )
    weight = next(pipe.vae.parameters())
    found = pipe.vae.encode((2 * images - 1).to(weight.device, weight.dtype))
    own = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    config = pipe.vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean and std:
        middle, spread = (own.new_tensor(each).view(1, -1, 1, 1) for each in (mean, std))
        scaled: Tensor = (own - middle) * config.scaling_factor / spread
        return scaled
    shift = getattr(config, "shift_factor", None)
    moved: Tensor = (own - shift if shift else own) * config.scaling_factor
    return moved


def picture_size(pipe: GuidedPipeline) -> int:
    """The side of the pictures that the model makes by itself."""
    return pipe.latent_shape()[1] * pipe.factor


def walking(model: Diffusion) -> Any:
    """A fresh scheduler whose steps can be walked either way."""
    return model.scheduler("flow" if is_flow(model.pipe.scheduler) else "ddim")


def attention_net(pipe: GuidedPipeline) -> Any:
    """The net of diffusers' whose attention reads the words."""
    return pipe.transformer.net if pipe.family == "own" else pipe.denoiser


def token_ids(pipe: GuidedPipeline, texts: Sequence[str], length: int) -> list[list[int]]:
    """The tokens of texts, padded to ``length``, in the places where the denoiser sees them."""
    said = [" ".join(text.split()) for text in texts]
    if pipe.family == "pixart":
        said = [text.lower() for text in said]
    found = pipe.tokenizer(said, padding="max_length", truncation=True, max_length=length)
    return [list(ids) for ids in found["input_ids"]]


def word_ids(pipe: GuidedPipeline, word: str) -> list[int]:
    """The tokens of a word within a text."""
    found = pipe.tokenizer([" ".join(word.split())], add_special_tokens=False)
    return list(found["input_ids"][0])
