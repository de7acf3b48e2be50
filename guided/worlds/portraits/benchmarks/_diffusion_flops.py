"""Operations of a guided step of Stable Diffusion 1.5 at 512 pixels, counted on shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def counted(work: Callable[[], Tensor]) -> float:
    """Tera floating point operations of a call and, where it can be, its backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = work()
        if result.requires_grad:
            torch.autograd.backward(result.sum())
    return float(counter.get_total_flops()) / 1e12


def parts_of_sd15() -> dict[str, float]:
    """Tera operations of the parts of a step at 512 px: forward alone, or with backward."""
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from open_clip.transformer import VisionTransformer

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        tiny = AutoencoderTiny()
        small = VisionTransformer(224, 32, 768, 12, 12, 4.0, output_dim=512)
        large = VisionTransformer(224, 14, 1024, 24, 16, 4.0, output_dim=768)
        for net in (unet, vae, tiny, small, large):
            net.eval().requires_grad_(False)
        latents, views = torch.empty(1, 4, 64, 64), torch.empty(1, 3, 224, 224)
        words, now = torch.empty(1, 77, 768), torch.empty(1)

    def grad(like: Tensor) -> Tensor:
        return torch.empty_like(like).requires_grad_()

    two, both = torch.cat([latents] * 2), torch.cat([words] * 2)
    return {
        "cfg": counted(lambda: unet(two, now.expand(2), both).sample),
        "unet, words, backward": counted(lambda: unet(grad(latents), now, words).sample),
        "unet, cfg, backward": counted(lambda: unet(grad(two), now.expand(2), both).sample),
        "vae": counted(lambda: vae.decode(grad(latents)).sample),
        "tiny": counted(lambda: tiny.decode(grad(latents)).sample),
        "ViT-B/32": counted(lambda: small(grad(views))),
        "ViT-L/14": counted(lambda: large(grad(views))),
    }


def flops() -> dict[str, Any]:
    """The parts, and each way of guiding as a ratio to the unguided step."""
    part = parts_of_sd15()
    cfg = part["cfg"]
    ways = {
        "community: third pass, vae, 4 cutouts, ViT-L/14": part["unet, words, backward"]
        + part["vae"] + 4 * part["ViT-L/14"],
        "exact, vae, ViT-L/14": part["unet, cfg, backward"] - cfg + part["vae"] + part["ViT-L/14"],
        "exact, tiny, ViT-B/32": part["unet, cfg, backward"] - cfg + part["tiny"]
        + part["ViT-B/32"],
        "stop, vae, ViT-B/32": part["vae"] + part["ViT-B/32"],
        "stop, tiny, ViT-B/32": part["tiny"] + part["ViT-B/32"],
        "stop, preview, ViT-L/14": part["ViT-L/14"],
        "stop, preview, ViT-B/32": part["ViT-B/32"],
    }  # fmt: skip
    return {"tera": part, "ratio": {name: 1 + extra / cfg for name, extra in ways.items()}}
