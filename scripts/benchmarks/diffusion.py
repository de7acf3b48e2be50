"""What CLIP guidance costs while denoising: each gradient path beside an unguided run, one run.

Random weights at the size of the shipped model (128 px, latents 16 x 16 x 4), CPU seconds of this
process, one thread.  ``--flops`` prints the floating point operations of a guided step of Stable
Diffusion 1.5 at 512 px instead, counted on shapes alone.  ``--json`` prints one object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import _diffusion_reference as reference

from guided.core.objective import Objective
from guided.core.seeds import Seeds
from guided.generators.diffusion import BoundDiffusion
from guided.generators.diffusion_pipeline import Conditions, GuidedPipeline
from guided.guidance.denoise import Guidance, denoise
from guided.losses.clip import Clip

PATHS: dict[str, dict[str, Any]] = {
    "stop, preview": {"decode": "preview"},
    "stop, preview, every 2nd": {"decode": "preview", "every": 2},
    "stop, tiny": {"decode": "tiny"},
    "stop, vae": {"decode": "vae"},
    "exact, preview": {"decode": "preview", "jacobian": "exact"},
    "exact, vae": {"decode": "vae", "jacobian": "exact"},
}


class RandomClip:
    """A random ViT of the shipped CLIP's kind: 64 px, patches of 8, width 192, 6 blocks."""

    name, width, scale = "random ViT", 128, 100.0

    def __init__(self) -> None:
        self.patch = nn.Conv2d(3, 192, 8, 8)
        layer = nn.TransformerEncoderLayer(192, 3, 768, 0.0, "gelu", batch_first=True)
        self.body = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(192, 128)
        for part in (self.patch, self.body, self.head):
            part.eval().requires_grad_(False)

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [B, 128]."""
        small = nn.functional.interpolate(images, size=(64, 64), mode="bilinear", antialias=True)
        tokens = self.patch(2 * small - 1).flatten(2).transpose(1, 2)
        return nn.functional.normalize(self.head(self.body(tokens).mean(1)), dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """The same unit vector for every text."""
        return nn.functional.normalize(torch.ones(len(texts), 128), dim=1)


def small_pipeline() -> GuidedPipeline:
    """Random weights at the size of the model that is to be shipped."""
    from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, PixArtTransformer2DModel

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 96, 96), layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4
    )
    denoiser = PixArtTransformer2DModel(
        num_attention_heads=6, attention_head_dim=32, in_channels=4, out_channels=4, num_layers=6,
        cross_attention_dim=192, sample_size=16, patch_size=2, caption_channels=128,
        norm_type="ada_norm_single", use_additional_conditions=False,
    )  # fmt: skip
    return GuidedPipeline(vae=vae, tiny=tiny, transformer=denoiser, scheduler=DDIMScheduler())


def drained(stream: Any) -> Tensor:
    while True:
        try:
            next(stream)
        except StopIteration as end:
            return end.value


def seconds(work: Callable[[], Tensor], repeats: int) -> float:
    """The least CPU time of some repeats."""
    work()
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        assert bool(torch.isfinite(work()).all())
        found.append(time.process_time() - begun)
    return min(found)


def speed(steps: int, batch: int, repeats: int) -> dict[str, float]:
    """CPU seconds a picture of each way, decoding at the end included."""
    pipe, clip, seeds = small_pipeline(), RandomClip(), Seeds.of(0, batch)
    stream = torch.Generator().manual_seed(0)
    words = Conditions(
        torch.randn(2 * batch, 16, 128, generator=stream), mask=torch.ones(2 * batch, 16)
    )
    bound = BoundDiffusion(pipe, words)
    noise = seeds.normal(pipe.latent_shape(), "diffusion/noise")
    pipe.picture(noise, "preview")

    def ours(**path: Any) -> Tensor:
        guide = None
        if path:
            guide = Guidance(objective=Objective.of(Clip("red")), scorer=clip, **path)
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        stream = denoise(bound, scheduler, noise, seeds, steps, cfg=5.0, guidance=guide)
        with torch.no_grad():
            return pipe.picture(drained(stream), "vae")

    def community() -> Tensor:
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        with torch.no_grad():
            latents = reference.sample(
                pipe, words, scheduler, noise, steps, 5.0, clip, clip.embed_texts(["red"])
            )
            return pipe.picture(latents, "vae")

    found = {"unguided": seconds(ours, repeats), "community": seconds(community, repeats)}
    for name, path in PATHS.items():
        found[name] = seconds(lambda path=path: ours(**path), repeats)
    return {name: value / batch for name, value in found.items()}


def counted(work: Callable[[], Tensor]) -> float:
    """Tera floating point operations of a call and, where it can be, its backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = work()
        if result.requires_grad:
            result.sum().backward()
    return counter.get_total_flops() / 1e12


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if asked.flops:
        table = flops()
        for name, value in table["tera"].items():
            print(f"{name:<50} {value:9.3f} TFLOP", file=sys.stderr)
        for name, value in table["ratio"].items():
            print(f"{name:<50} {value:9.2f} x unguided", file=sys.stderr)
        print(json.dumps(table)) if asked.json else None
        return
    torch.set_num_threads(1)
    answer: dict[str, Any] = {}
    for batch in asked.batch:
        found = speed(asked.steps, batch, asked.repeats)
        answer[str(batch)] = found
        for name, value in found.items():
            ratio, gain = value / found["unguided"], found["community"] / value
            print(
                f"batch {batch}  {name:<26} {value:8.3f} CPU-s a picture  {ratio:6.2f} x unguided  "
                f"{gain:6.2f} x faster than the community way", file=sys.stderr,
            )  # fmt: skip
    print(json.dumps(answer)) if asked.json else None


if __name__ == "__main__":
    main()
