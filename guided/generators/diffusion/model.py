"""Diffusion models as generators: prompts bound, noise drawn, latents rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from guided.core.device import Device, widened
from guided.core.protocols import Latent
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError
from guided.generators.diffusion.base import Conditioning, Family, Predict
from guided.generators.diffusion.pipeline import Decode, GuidedPipeline
from guided.generators.diffusion.schedulers import scheduler_of


@dataclass(frozen=True)
class BoundDiffusion:
    """A pipeline with its prompts encoded: what the denoising loop drives."""

    pipe: GuidedPipeline
    words: Conditioning

    def predict(self, given: Tensor, time: Any) -> Tensor:
        """The model's outputs [N, C, h, w], float32; N rows, or fewer where the words say."""
        return widened(self.bound(given.to(self.pipe.denoiser.dtype), time))

    @property
    def embeds_guidance(self) -> bool:
        """Whether the model was told the scale of guidance, so that nothing is to be combined."""
        return self.pipe.family.embeds_guidance

    @cached_property
    def bound(self) -> Predict:
        """The family's denoiser, told these words once."""
        return self.pipe.family.bind(self.pipe, self.words)

    def decode_latents(self, latents: Tensor, decode: Decode) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] of clean latents."""
        return self.pipe.decode_latents(latents, decode)

    def preview(self, latents: Tensor) -> Tensor:
        """Pictures in haste: by the tiny decoder where there is one, else by the linear preview."""
        return self.pipe.decode_latents(latents, "preview" if self.pipe.tiny is None else "tiny")


class Diffusion:
    """A diffusion pipeline as a generator; its parts are frozen and on ``device``.

    Latents: ``{"noise": [B, C, h, w]}`` to begin with, ``{"x0": [B, C, h, w]}`` to render; they and
    the images are float32, whatever the precision of the weights.
    """

    def __init__(
        self, pipe: GuidedPipeline, *, name: str = "diffusion", device: Device | None = None
    ) -> None:
        self.name = name
        self.device = device or Device()
        self.pipe = pipe.placed(self.device)
        self.family.optimize(self.pipe, self.device.torch)

    @property
    def family(self) -> Family[Any]:
        """The family that the model belongs to."""
        family: Family[Any] = self.pipe.family
        return family

    @property
    def cfg(self) -> float:
        """Classifier-free guidance that suits the model."""
        return self.family.cfg

    def start(
        self,
        seeds: Seeds,
        prompts: Sequence[str] | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> Latent:
        """Standard normal noise, a row for each seed, for pictures of ``size`` (height, width).

        Prompts do not matter here; they are bound with ``bound``.
        """
        shape = self.pipe.latent_shape(size)
        return {"noise": seeds.normal(shape, "diffusion/noise", self.device.torch)}

    def render(self, latent: Latent) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] of clean latents ``{"x0": ...}``; differentiable.

        Raises:
            ShapeError: other leaves; noise has no picture before it was denoised.
        """
        if set(latent) != {"x0"}:
            raise ShapeError(
                f"A diffusion latent to render has the leaf 'x0', not {', '.join(latent)}."
            )
        images: Tensor = self.pipe.decode_latents(latent["x0"], "vae")
        return images

    def decode(self, latents: Tensor, names: Sequence[str] = (), at: str = "") -> Tensor:
        """The finished images [B, 3, H, W] in [0, 1] of clean latents.

        Raises:
            CannotDo: an image that is not finite, by its name; ``at`` says with what settings.
        """
        with torch.no_grad():
            images = self.render({"x0": latents})
        fine = torch.isfinite(images).flatten(1).all(1)
        if bool(fine.all()):
            return images
        half, bad = self.device.precision == "fp16", int((~fine).int().argmax())
        raise CannotDo(
            f"{names[bad] if names else f'Image {bad + 1} of {len(fine)}'} is not finite{at}.",
            hint="Numbers may have overflowed in fp16: take --dtype bf16 or fp32." if half else
            "Lower --cfg and --guide-scale; if that does not help, the weights are damaged: get "
            "them again.",
        )  # fmt: skip

    def bound(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str] = (),
        *,
        cfg: float = 1.0,
        size: tuple[int, int] | None = None,
        image: Tensor | None = None,
    ) -> BoundDiffusion:
        """The model for these prompts; with ``cfg`` above 1 it also runs without words.

        ``image`` [B, D] are unit embeddings of pictures, for the shipped model; what runs without
        words runs without them too.

        Raises:
            CannotDo: the pipeline has no text encoder, takes no pictures, or takes no negatives.
        """
        if self.family.embeds_guidance and any(negatives):
            raise CannotDo(
                f"The model {self.name!r} is told the strength of guidance and takes no negative "
                "prompt.",
                hint="Leave the negative prompt out.",
            )
        _, rows, columns = self.pipe.latent_shape(size)
        whole = (rows * self.pipe.factor, columns * self.pipe.factor)
        apart = list(negatives) or [""] * len(prompts)
        both = cfg > 1 and not self.family.embeds_guidance
        words = self.pipe.encode(prompts, apart, whole, both=both, image=image, cfg=cfg)
        return BoundDiffusion(self.pipe, words)

    def scheduler(self, name: str = "", size: tuple[int, int] | None = None) -> Any:
        """A fresh scheduler, the model's own or the named one, for images of ``size``."""
        return self.family.schedule(self.pipe, scheduler_of(self.pipe.scheduler, name), size)
