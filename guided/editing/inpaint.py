"""Inpainting: what lies within a mask is drawn anew; the rest keeps its noise and its pixels.

Source: Lugmayr et al. 2022 (RePaint), eq. 8.
"""

from __future__ import annotations

from typing import ClassVar

from guided.editing.denoising import noise_key
from guided.editing.sdedit import Sdedit


class Inpaint(Sdedit):
    """SDEdit within a mask, by default from noise alone."""

    needs_mask: ClassVar[bool] = True
    noise: float = noise_key(1.0)
