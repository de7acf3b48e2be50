"""A diffusers pipeline that can be steered: the parts of a diffusion model of any family.

Loading, saving, precision and offloading are those of every diffusers pipeline.  What differs
between families is in ``family``.  The loop is not here: ``predict`` and ``picture`` are what
guided.guidance.denoise drives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from guided.core.device import Device
from guided.core.long_texts import LongText
from guided.errors import CannotDo, ShapeError
from guided.generators.diffusion.base import Conditioning, Family, PromptBatch
from guided.generators.diffusion.families import class_names, family_of
from guided.generators.diffusion.text import encode_windows
from guided.generators.diffusion.vae import decoded, factor_of, part_dtype, preview_table

Decode = Literal["vae", "tiny", "preview", "latent"]
OPTIONAL = [
    "unet", "transformer", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2",
    "text_encoder_3", "tokenizer_3", "tiny",
]  # fmt: skip


class GuidedPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A VAE, a denoiser (``unet`` or ``transformer``), a scheduler, and what encodes prompts.

    ``tiny`` is a small decoder of the same latents; ``preview`` a linear map from latents to
    colours, C + 1 rows (the last is the constant) of 3 numbers in [-1, 1], fitted to the VAE at
    the first use where it is None.  ``max_sequence_length`` is how many tokens of a prompt a PixArt
    model reads.
    """

    model_cpu_offload_seq = (
        "text_encoder->text_encoder_2->text_encoder_3->unet->transformer->tiny->vae"
    )
    _optional_components = OPTIONAL

    def __init__(
        self,
        vae: Any,
        scheduler: Any,
        unet: Any = None,
        transformer: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        text_encoder_3: Any = None,
        tokenizer_3: Any = None,
        tiny: Any = None,
        force_zeros_for_empty_prompt: bool = True,  # noqa: FBT001, FBT002
        preview: list[list[float]] | None = None,
        max_sequence_length: int = 120,
    ) -> None:
        super().__init__()
        self.execution_device: torch.device | None = None
        self.long_text: LongText = "cut"
        self.cut_texts: set[str] = set()
        self.register_modules(
            vae=vae, scheduler=scheduler, unet=unet, transformer=transformer, tiny=tiny,
            text_encoder=text_encoder, tokenizer=tokenizer,
            text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3, tokenizer_3=tokenizer_3,
        )  # fmt: skip
        self.register_to_config(
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt, preview=preview,
            max_sequence_length=max_sequence_length,
        )  # fmt: skip
        parts = {name: part for name, part in self.components.items() if part is not None}
        self.family: Family[Any] = family_of(
            {name: class_names(part) for name, part in parts.items()}
        )
        self.family.prepare(self)
        for part in self.components.values():
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    # ----------------------------------------------------------------------- placement

    def placed(self, device: Device) -> Self:
        """The pipeline with its parts on a device and in its precision, or offloaded from it.

        Parts that are in that precision by the denoiser's account keep what a library left in
        fp32.  A prior stays where it is compared: on the device, in fp32.
        """
        self.execution_device = device.torch
        same = self.denoiser.dtype == device.dtype
        for name, part in self.components.items():
            if name == "prior":
                nn.Module.to(part, device.torch, torch.float32)
            elif isinstance(part, nn.Module):
                exact = name in ("vae", "tiny") or not same
                device.place(part, part_dtype(part, device) if exact else None)
        return self

    @property
    def _execution_device(self) -> torch.device:
        """Where the parts compute, which stock pipelines ask for."""
        return self.execution_device or self.device

    # ----------------------------------------------------------------------- shapes

    @property
    def denoiser(self) -> Any:
        """The unet or the transformer."""
        return self.unet if self.transformer is None else self.transformer

    @property
    def factor(self) -> int:
        """How many pixels of a side one latent covers."""
        return factor_of(self.vae)

    def latent_shape(self, size: tuple[int, int] | None = None) -> tuple[int, int, int]:
        """Channels, height and width of the latents of images of ``size`` (height, width).

        Raises:
            UsageError: a size that is not a multiple of what one cell of the model covers.
        """
        return self.family.latent_shape(self, size)

    # ----------------------------------------------------------------------- words

    def encode(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        size: tuple[int, int],
        *,
        both: bool = True,
        image: Tensor | None = None,
        cfg: float = 1.0,
    ) -> Conditioning:
        """Prompts as the stock pipeline of the family encodes them.

        ``both`` puts the rows of ``negatives`` (one for each prompt; all empty is none) before
        those of ``prompts``.  ``size`` is that of the pictures (height, width).  ``image`` [B, D]
        are unit embeddings of pictures by the CLIP that the shipped model reads with, one for each
        prompt; the rows of negatives do not see them.  ``cfg`` is told to a family that embeds it.

        Raises:
            CannotDo: this pipeline has no text encoder, or takes no pictures.
            ShapeError: another number of negatives or embeddings than prompts.
        """
        if self.text_encoder is None or self.tokenizer is None:
            raise CannotDo(
                "This pipeline has no text encoder, or no tokenizer.",
                hint="Take a folder whose model_index.json names text_encoder and tokenizer.",
            )
        if len(negatives) != len(prompts):
            raise ShapeError(f"{len(negatives)} negatives were given for {len(prompts)} prompts.")
        if image is not None and not self.family.takes_image_embeddings:
            raise CannotDo("This pipeline takes no embeddings of pictures.", hint="Use words.")
        batch = PromptBatch(prompts, negatives if both else (), size, image, cfg)
        if self.long_text == "windows":
            return encode_windows(self, batch)
        conditioning: Conditioning = self.family.encode_prompt(self, batch)
        return conditioning

    # ----------------------------------------------------------------------- models

    def predict(self, given: Tensor, time: Any, words: Conditioning) -> Tensor:
        """The denoiser's output [N, C, h, w] for inputs [N, C, h, w] at a scheduler's time step.

        Where the model also predicts a variance, that half is dropped.
        """
        return self.family.predict(self, given, time, words)

    def decode_latents(self, latents: Tensor, decode: Decode = "vae") -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] of latents [B, C, h, w]; differentiable.

        Raises:
            CannotDo: "tiny" without a tiny decoder, or "latent", which is no picture.
        """
        if decode == "preview":
            signed = self._previewed(latents)
        elif decode == "tiny":
            if self.tiny is None:
                raise CannotDo(
                    "This pipeline has no tiny decoder.", hint="Take decode vae or preview."
                )
            signed = decoded(self.tiny, latents / self.tiny.config.scaling_factor)
        elif decode == "vae":
            signed = decoded(self.vae, self.family.to_vae(self, latents))
        else:
            raise CannotDo(f"{decode!r} gives no picture; allowed: vae, tiny, preview.")
        unit: Tensor = (signed / 2 + 0.5).clamp(0, 1)
        if torch.is_grad_enabled():
            return unit
        # What overflowed is white once it is clamped: it stays visible as not finite.
        return unit.masked_fill(~torch.isfinite(signed), torch.nan)

    def _previewed(self, latents: Tensor) -> Tensor:
        if self.config.preview is None:
            self.fit_preview(self._sample_latents())
        table = latents.new_tensor(self.config.preview)
        colours = torch.einsum("bchw,cr->brhw", latents, table[:-1]) + table[-1].view(1, 3, 1, 1)
        return F.interpolate(colours, scale_factor=float(self.factor), mode="bilinear")

    def _sample_latents(self) -> Tensor:
        """Random smooth latents [8, C, 16, 16], the same at every call."""
        stream = torch.Generator().manual_seed(0)
        shape = (8, self.latent_shape()[0])
        coarse = torch.randn(*shape, 4, 4, generator=stream)
        fine = torch.randn(*shape, 16, 16, generator=stream)
        smooth = F.interpolate(coarse, size=(16, 16), mode="bilinear") + 0.3 * fine
        return smooth.to(self._execution_device)

    @torch.no_grad()
    def fit_preview(self, latents: Tensor) -> float:
        """Fit the linear preview to the VAE on latents [N, C, h, w]: ordinary least squares.

        Returns the share of the colours' variance that it explains, at most 1.
        """
        colours = decoded(self.vae, self.family.to_vae(self, latents)).clamp(-1, 1)
        table, explained = preview_table(latents, colours)
        self.register_to_config(preview=table)
        return explained
