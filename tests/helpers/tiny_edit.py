"""Tiny random models for the trainings of what edits: generator, CLIP, identity embedder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from guided.nets.delta import DeltaNet
from guided.nets.folded_encoder import FoldedStyleEncoder
from guided.nets.identity import IdentityNet
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_faces import seeded, write_generator


def tiny_identity(seed: int = 4) -> IdentityNet:
    """A random identity embedder."""
    net: IdentityNet = seeded(lambda: IdentityNet((8, 8, 8), (0, 0, 0), 4, 16, 12), seed)  # type: ignore[assignment]
    return net.eval()


def write_models(folder: Path) -> dict[str, str]:
    """Files of a generator, a CLIP and an identity embedder, by role."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "identity.safetensors"
    save_file(tiny_identity().state_dict(), file)
    return {
        "generator": str(write_generator(folder / "stylegan2.pt")),
        "scorer": f"local-dir:{write_clip(folder / 'clip')}",
        "identity": str(file),
    }


def write_inverter(path: Path, rows: int = 8, style: int = 16) -> Path:
    """A random inversion encoder of the small kind."""
    net = seeded(lambda: FoldedStyleEncoder(rows, style, (8, 8, 8), (0, 0, 0), 4, 16), 6)
    save_file({f"encoder.{name}": value for name, value in net.state_dict().items()}, path)
    return path


def write_delta(path: Path, rows: int = 8, style: int = 16, embed: int = 24) -> Path:
    """A random delta mapper."""
    net = seeded(lambda: DeltaNet(rows, style, embed, middle=12, hidden=16), 5)
    save_file(net.state_dict(), path)
    return path


def descend(
    objective: object,
    model: torch.nn.Module,
    batch: object,
    share: object,
    *,
    steps: int,
    rate: float,
) -> list[float]:
    """The losses of some steps of AdamW on one batch."""  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss, _ = objective.loss(model, batch, share)  # type: ignore[attr-defined]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses
