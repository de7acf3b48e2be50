"""CLIP guidance the way the public community pipeline does it, for comparison of speed.

A further pass of the denoiser with the words alone, its clean sample blended with the noisy one,
the full decoder, random cutouts one by one, a spherical distance, and the gradient back through
all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.generators.diffusion.pipeline import GuidedPipeline
from guided.zoo.gate_calls import from_config


def as_published(pipe: GuidedPipeline) -> GuidedPipeline:
    """The same parts, the denoiser in layers and attention as diffusers builds it."""
    net = pipe.transformer
    fresh = from_config(type(net), net.config)
    fresh.load_state_dict(net.state_dict())
    torch.nn.Module.to(fresh, net.device, net.dtype)
    return GuidedPipeline(
        vae=pipe.vae, tiny=pipe.tiny, preview=pipe.config.preview, scheduler=pipe.scheduler,
        transformer=fresh, tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder,
    )  # fmt: skip


def cut(images: Tensor, count: int, size: int) -> Tensor:
    """Square parts at random places, resized one after another."""
    rows = []
    side = min(images.shape[2:])
    for _ in range(count):
        length = int(torch.rand(1) * (side - size)) + size if side > size else side
        top = int(torch.randint(0, images.shape[2] - length + 1, (1,)))
        left = int(torch.randint(0, images.shape[3] - length + 1, (1,)))
        part = images[:, :, top : top + length, left : left + length]
        rows.append(F.adaptive_avg_pool2d(part, size))
    return torch.cat(rows)


def sample(
    pipe: Any, words: Any, scheduler: Any, noise: Tensor, steps: int, cfg: float, scorer: Any,
    targets: Tensor, scale: float = 100.0, cutouts: int = 4, size: int = 64,
) -> Tensor:  # fmt: skip
    """Latents after ``steps`` guided steps of an epsilon model under DDIM."""
    batch = len(noise)
    alone = replace(words, **{
        name: value[batch:] for name, value in vars(words).items() if value is not None
    })  # fmt: skip
    scheduler.set_timesteps(steps)
    latents = noise
    for time in scheduler.timesteps:
        kept = scheduler.alphas_cumprod[int(time)]
        with torch.no_grad():
            without, with_words = pipe.predict(torch.cat([latents] * 2), time, words).chunk(2)
            output = without + cfg * (with_words - without)
        with torch.enable_grad():
            given = latents.detach().requires_grad_()
            third = pipe.predict(given, time, alone)
            clean = (given - (1 - kept).sqrt() * third) / kept.sqrt()
            blend = (1 - kept).sqrt()
            images = pipe.picture(clean * blend + given * (1 - blend), "vae")
            seen = scorer.embed_images(cut(images, cutouts, size)).view(cutouts, batch, -1)
            loss = 2 * ((seen - targets).norm(dim=2) / 2).arcsin().square()
            (gradient,) = torch.autograd.grad(scale * loss.mean(0).sum(), given)
        output = output + (1 - kept).sqrt() * gradient
        latents = scheduler.step(output, time, latents, return_dict=False)[0]
    return latents
