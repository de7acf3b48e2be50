"""Latents and CLIP features of a pool's pictures, computed once and kept beside the pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guided.generators.diffusion_vae import Autoencoder
from guided.scorers.clip import ClipScorer
from guided.training.feature_store import PictureStore
from guided.training.world_data import Pool

_FORMAT = 1


class LatentStore(PictureStore):
    """The latents and features of a pool.

    ``mark`` names the autoencoder's weights.  ``resident`` keeps what was read in the memory of
    the autoencoder's device.
    """

    parts = ("latents", "features")

    def __init__(
        self,
        pool: Pool,
        autoencoder: Autoencoder,
        scorer: ClipScorer,
        mark: str,
        *,
        resident: bool = False,
    ) -> None:
        device: torch.device = next(autoencoder.vae.parameters()).device
        super().__init__(pool, device, resident=resident)
        self.autoencoder, self.scorer, self.mark = autoencoder, scorer, mark

    @property
    def folder(self) -> Path:
        """Beside the pool's pictures, named by both models."""
        name = f"latents{_FORMAT}-{self.mark[:8]}-{self.scorer.fingerprint[:8]}"
        return self.pool.folder / name

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Latents [n, C, h, w] and unit features [n, D] of rows, float32; waits for pictures."""
        latents, features = self.rows(rows)
        return latents, features

    def encode(self, pixels: Tensor) -> Sequence[Tensor]:
        """Latents and features of some pictures."""
        images = pixels.float().div(255)
        return self.autoencoder.encode(images), self.scorer.embed_images(images)
