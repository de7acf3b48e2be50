"""DDIM inversion: the noise that it finds, replayed with the prompt.

Source: Song et al. 2021 (DDIM); Pan et al. 2023 (AIDI); Ju et al. 2024 (PnP inversion).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from guided.editing.denoising import ReplayEditor, noise_key

if TYPE_CHECKING:
    from guided.guidance.inversion import Inversion


class Ddim(ReplayEditor):
    """A replay without noise of its own."""

    inversion: ClassVar[Inversion] = "ddim"
    noise: float = noise_key(0.8)
