"""The nouns other floors implement, as small Protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from guided.core.seeds import Seeds

Latent = dict[str, Tensor]
"""Named leaves, each [B, ...]: a W+ code, StyleSpace channels, {z, text}, keys and values."""


@runtime_checkable
class Scorer(Protocol):
    """Embeds pictures and texts into one space; owns its own resize and normalisation."""

    name: str
    width: int
    scale: float

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [B, width] of pictures [B, 3, H, W] in [0, 1]; differentiable."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width] of texts."""
        ...


@runtime_checkable
class Generator(Protocol):
    """Turns a latent into pictures."""

    name: str

    def start(self, seeds: Seeds, prompts: Sequence[str] | None = None) -> Latent:
        """A latent with one row for each seed."""
        ...

    def render(self, latent: Latent) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1]; differentiable in every leaf."""
        ...
