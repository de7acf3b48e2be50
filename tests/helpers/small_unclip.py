"""A tiny prior beside the tiny denoiser, and streams run to their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from guided.generators.unclip import CLIP, CONFIG, WEIGHTS
from guided.nets.prior import PortraitPrior
from tests.helpers.small_models import seeded

LAYOUT: dict[str, Any] = {
    "width": 16, "heads": 2, "layers": 2, "words": 12, "text_width": 32, "embed_width": 24,
}  # fmt: skip


def prior(seed: int = 0) -> PortraitPrior:
    """A random prior of the tiny CLIP's words whose answers depend on what it is told."""

    def make() -> PortraitPrior:
        made = PortraitPrior(**LAYOUT)
        made.net.proj_to_clip_embeddings.weight.data.normal_(std=0.5)
        made.set_stats(F.normalize(torch.randn(64, 24), dim=1))
        return made.eval()

    found: PortraitPrior = seeded(make, seed)
    return found


def write_prior(folder: Path, fingerprint: str, seed: int = 0) -> Path:
    """A random prior's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({**LAYOUT, CLIP: fingerprint}), "utf-8")
    state = {k: v.contiguous() for k, v in prior(seed).state_dict().items()}
    save_file(state, folder / WEIGHTS)
    return folder


def unit(count: int = 2, seed: int = 0, width: int = 24) -> Tensor:
    """Random unit vectors."""
    stream = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=stream), dim=1)
