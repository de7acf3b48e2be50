"""A tiny model of the shipped kind: an autoencoder's folder, a CLIP, a denoiser's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from guided.core.device import Device
from guided.generators.diffusion.portrait_folder import Parts, folder_files
from guided.generators.diffusion.vae import WEIGHTS, find_autoencoder
from guided.nets.denoiser import PortraitDenoiser
from guided.scorers.clip import ClipScorer, load_clip
from guided.training.objectives.autoencoder import Autoencoders, AutoencoderSettings, config_of
from tests.helpers.small_models import seeded

SMALL_VAE = AutoencoderSettings(
    size=32, widths=(8, 16), channels=6, groups=2, tiny=8, tiny_blocks=(1, 1),
    features=0.0,
)  # fmt: skip


def write_autoencoder(folder: Path, seed: int = 0) -> Path:
    """A random autoencoder's folder: 32 px, latents of 8 x 8 x 6."""
    made: Any = seeded(lambda: Autoencoders(SMALL_VAE), seed)
    for name, part in (("vae", made.vae), ("tiny", made.tiny)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_bytes(config_of(part))
        save_file(
            {k: v.contiguous() for k, v in part.state_dict().items()}, folder / name / WEIGHTS
        )
    stream = torch.Generator().manual_seed(seed)
    table = (0.3 * torch.randn(7, 3, generator=stream)).tolist()
    (folder / "preview.json").write_text(json.dumps(table), "utf-8")
    return folder


def denoiser(seed: int = 0, **changes: Any) -> PortraitDenoiser:
    """A random denoiser of those latents and of the tiny CLIP's words."""
    shape: dict[str, Any] = {
        "in_channels": 6, "sample_size": 8, "width": 16, "heads": 2, "layers": 2, "text_width": 32,
        "embed_width": 24, "image_tokens": 2, **changes,
    }  # fmt: skip

    def make() -> PortraitDenoiser:
        made = PortraitDenoiser(**shape)
        with torch.no_grad():  # it is born blind: what it is told must show
            for layer in (made.words_time, made.image_time, made.net.proj_out):
                layer.weight.normal_(std=0.3)
        return made.eval()

    found: PortraitDenoiser = seeded(make, seed)
    return found


def clip(bundle: Path) -> ClipScorer:
    return load_clip(f"local-dir:{bundle}", Device())


def write_denoiser(folder: Path, autoencoder: Path, bundle: Path, seed: int = 0) -> Path:
    """A random denoiser's folder that names those two."""
    net = denoiser(seed)
    parts = Parts(
        str(autoencoder), find_autoencoder(str(autoencoder))[1], f"local-dir:{bundle}",
        clip(bundle).fingerprint,
    )  # fmt: skip
    for name, content in folder_files(net, parts).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "transformer").mkdir(exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in net.state_dict().items()}, folder / "transformer" / WEIGHTS
    )
    return folder
