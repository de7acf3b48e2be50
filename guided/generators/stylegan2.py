"""StyleGAN2 as a generator: W+ or StyleSpace latents to pictures, from any published file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from guided.core.device import Device
from guided.core.protocols import Latent
from guided.core.seeds import Seeds
from guided.core.shapes import expect
from guided.errors import CannotDo, CorruptWeights, ShapeError
from guided.nets.stylegan2 import StyleGAN2, truncate
from guided.nets.stylegan2_formats import average_of, build_stylegan2, is_nvidia
from guided.zoo.checkpoint import read_checkpoint

Space = Literal["w", "s"]
Overshoot = Literal["clip", "keep"]
_AVERAGED = 4096
_MARKS = ("input.input", "synthesis.b4.const", "mapping.w_avg", "synthesis.input.weight")
_PREFIXES = ("g_ema.", "G_ema.", "g.", "G.", "state_dict.decoder.", "decoder.", "")


class StyleGan2:
    """Renders ``{"w": [B, rows, style]}`` or StyleSpace codes ``{"s_00": [B, channels], ...}``.

    Latents are float32 on the generator's device; so are the pictures, whatever the precision
    inside.  ``average`` [style] or [rows, style] is the mean style vector, the centre of
    truncation.  ``overshoot`` says what happens to values beyond [0, 1]: "clip" them, or "keep"
    them as StyleCLIP does.
    """

    def __init__(
        self,
        net: StyleGAN2,
        *,
        name: str = "stylegan2",
        average: Tensor | None = None,
        device: Device | None = None,
        overshoot: Overshoot = "clip",
    ) -> None:
        self.name = name
        self.device = device or Device()
        self.net = self.device.prepare(net)
        self.overshoot = overshoot
        self.average = (
            self._averaged() if average is None else average.to(self.device.torch).float()
        )

    @property
    def size(self) -> int:
        """The side of the pictures in pixels."""
        return self.net.shape.size

    def start(
        self, seeds: Seeds, prompts: Sequence[str] | None = None, *, truncation: float = 0.7
    ) -> Latent:
        """W+ codes of random portraits, one for each seed, drawn toward the mean by ``truncation``.

        Prompts do not matter here: this generator knows no words.
        """
        z = seeds.normal((self.net.shape.latent,), "stylegan2/z", self.device.torch)
        with torch.no_grad():
            w = self.net.mapping(z.to(self.device.dtype)).float()
            return {"w": truncate(self.net.spread(w), self.average, truncation).contiguous()}

    def middle(self, count: int = 1) -> Latent:
        """The mean style vector as a W+ code, repeated for ``count`` rows of a batch."""
        rows = self.average.expand(self.net.shape.rows, -1)
        return {"w": rows.expand(count, -1, -1).contiguous()}

    def render(self, latent: Latent) -> Tensor:
        """Pictures [B, 3, size, size] in [0, 1] of W+ or StyleSpace leaves; differentiable.

        Raises:
            ShapeError: leaves of another shape or with other names.
        """
        codes = self._codes(latent)
        images = self.net.synthesis([code.to(self.device.dtype) for code in codes]).float()
        unit = (images + 1) / 2
        return unit.clamp(0, 1) if self.overshoot == "clip" else unit

    def in_space(self, latent: Latent, space: Space) -> Latent:
        """The same picture's latent in W+ ("w") or StyleSpace ("s").

        Raises:
            CannotDo: from StyleSpace back to W+, which in general does not exist.
        """
        if space == "w":
            if "w" not in latent:
                raise CannotDo(
                    "A StyleSpace code has no W+ code.", hint="Go on in StyleSpace: space = 's'."
                )
            return latent
        if "w" not in latent:
            return latent
        with torch.no_grad():
            return {f"s_{i:02d}": code for i, code in enumerate(self._codes(latent))}

    def movable(self, space: Space) -> list[str]:
        """The leaves an edit may move: not the colour layers of StyleSpace.

        Source: Wu et al. 2021 (StyleSpace): toRGB channels change the whole picture's colours.
        """
        if space == "w":
            return ["w"]
        return [f"s_{i:02d}" for i in range(3 * len(self.net.shape.channels) - 1) if i % 3 != 1]

    def _codes(self, latent: Latent) -> list[Tensor]:
        if "w" in latent:
            w_plus = latent["w"]
            expect(w_plus, f"b {self.net.shape.rows} {self.net.shape.style}", "w")
            return self.net.codes(w_plus.to(self.device.dtype))
        names = [f"s_{i:02d}" for i in range(3 * len(self.net.shape.channels) - 1)]
        if sorted(latent) != names:
            raise ShapeError(
                f"A latent of {self.name!r} has the leaf w, or the leaves {names[0]} to "
                f"{names[-1]}; given: {', '.join(sorted(latent)) or 'none'}."
            )
        return [latent[name] for name in names]

    @torch.no_grad()
    def _averaged(self) -> Tensor:
        """The mean of 4096 style vectors, for files that do not hold it."""
        z = Seeds.of(0).normal((_AVERAGED, self.net.shape.latent), "stylegan2/average")[0]
        styles = self.net.mapping(z.to(self.device.torch, self.device.dtype))
        return styles.float().mean(0)


def load_stylegan2(
    path: str | Path,
    device: Device | None = None,
    *,
    name: str = "",
    overshoot: Overshoot = "clip",
) -> StyleGan2:
    """The generator in a file: ``g_ema`` (.pt, .safetensors), a bare state dict, NVIDIA (.pkl).

    Files of e4e, pSp and StyleCLIP's mappers hold a generator too (``decoder.``) and work as well.

    Raises:
        CorruptWeights: no StyleGAN2 inside; the message lists the keys that miss.
        UnsafeWeights: a file that would run code.
        CannotDo: conditional, residual, StyleGAN3 or TensorFlow generators.
    """
    content = read_checkpoint(path)
    state = content.part(_MARKS, _PREFIXES)
    if not state:
        raise CorruptWeights(
            f"{path} holds no StyleGAN2 generator: there is no input.input or synthesis.b4.const "
            f"under g_ema, G_ema, g, G, decoder or at the top; it holds {content.summary()}."
        )
    average = average_of(state) if is_nvidia(state) else content.get("latent_avg")
    net = build_stylegan2(state)
    return StyleGan2(
        net,
        name=name or Path(path).stem,
        average=None if average is None else average.float(),
        device=device,
        overshoot=overshoot,
    )
