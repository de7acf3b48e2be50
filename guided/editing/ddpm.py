"""Edit-friendly DDPM inversion: the noise that it finds, replayed with the prompt.

Source: Huberman-Spiegelglas et al. 2024 (edit-friendly DDPM).
"""

from __future__ import annotations

from guided.editing.denoising import ReplayEditor, cfg_key


class Ddpm(ReplayEditor):
    """A replay of DDPM's steps with the noise that gives the image."""

    cfg: float = cfg_key(4.0)
