"""A pipeline of diffusers' modules that can be steered: SD 1.5, SDXL and PixArt folders alike.

Loading, saving, precision and offloading are those of every diffusers pipeline.  The loop is not
here: ``predict`` and ``picture`` are what guided.guidance.denoise drives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from guided.errors import CannotDo, ShapeError, UsageError
from guided.generators.diffusion_folder import Family
from guided.generators.diffusion_stock import (
    cleans_captions,
    hushed,
    refuse_others,
    report_cuts,
    set_right,
    stock_pipeline,
)
from guided.generators.diffusion_vae import factor_of, preview_table
from guided.generators.diffusion_words import read_words
from guided.nets.denoiser import PortraitDenoiser

Decode = Literal["vae", "tiny", "preview", "latent"]
_OPTIONAL = [
    "unet", "transformer", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "tiny",
]  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """Encoded prompts of N rows; N is twice the batch where rows without words come first.

    ``text`` [N, L, D], ``mask`` [N, L] (1 is read), ``pooled`` [N, P], ``sizes`` [N, 6] (SDXL's
    height, width, crop and target), ``shape`` [N, 3] (PixArt's height, width and their ratio).
    The shipped model also takes unit embeddings of pictures, ``image`` [N, D], which rows where
    ``shown`` [N] is 0 do not see.
    """

    text: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None
    sizes: Tensor | None = None
    shape: Tensor | None = None
    image: Tensor | None = None
    shown: Tensor | None = None


class GuidedPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A VAE, a denoiser (``unet`` or ``transformer``), a scheduler, and what encodes prompts.

    ``tiny`` is a small decoder of the same latents; ``preview`` a linear map from latents to
    colours, C + 1 rows (the last is the constant) of 3 numbers in [-1, 1], fitted to the VAE at
    the first use where it is None.  ``max_sequence_length`` is how many tokens of a prompt a PixArt
    model reads.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->transformer->tiny->vae"
    _optional_components = _OPTIONAL

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
        tiny: Any = None,
        force_zeros_for_empty_prompt: bool = True,  # noqa: FBT001, FBT002
        preview: list[list[float]] | None = None,
        max_sequence_length: int = 120,
    ) -> None:
        super().__init__()
        if (unet is None) == (transformer is None):
            raise CannotDo("A pipeline needs a unet or a transformer, and not both.")
        self.register_modules(
            vae=vae, scheduler=scheduler, unet=unet, transformer=transformer, tiny=tiny,
            text_encoder=text_encoder, tokenizer=tokenizer,
            text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2,
        )  # fmt: skip
        self.register_to_config(
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt, preview=preview,
            max_sequence_length=max_sequence_length,
        )  # fmt: skip
        refuse_others(self.denoiser, vae)
        if self.family == "sd":
            set_right(scheduler, unet)
        for part in self.components.values():
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    # ----------------------------------------------------------------------- shapes

    @property
    def family(self) -> Family:
        """Which stock pipeline its parts belong to; "own" is the shipped model."""
        if isinstance(self.transformer, PortraitDenoiser):
            return "own"
        if self.transformer is not None:
            return "pixart"
        return "sd" if self.text_encoder_2 is None else "sdxl"

    @property
    def denoiser(self) -> Any:
        """The unet or the transformer."""
        return self.unet if self.transformer is None else self.transformer

    @property
    def factor(self) -> int:
        """How many pixels of a side one latent covers."""
        return factor_of(self.vae)

    def latent_shape(self, size: tuple[int, int] | None = None) -> tuple[int, int, int]:
        """Channels, height and width of the latents of pictures of ``size`` (height, width).

        Raises:
            UsageError: a size that is not a multiple of what one cell of the model covers.
        """
        side = self.denoiser.config.sample_size
        rows, columns = (side, side) if isinstance(side, int) else side
        height, width = size or (rows * self.factor, columns * self.factor)
        cell = self.factor * int(getattr(self.denoiser.config, "patch_size", None) or 1)
        if min(height, width) < cell or height % cell or width % cell:
            near = " x ".join(str(max(1, round(each / cell)) * cell) for each in (width, height))
            raise UsageError(
                f"Pictures of {width} x {height} pixels are not a multiple of {cell} "
                f"from {cell} up.",
                hint=f"The nearest size that is: {near}.",
            )
        return int(self.denoiser.config.in_channels), height // self.factor, width // self.factor

    # ----------------------------------------------------------------------- words

    def encode(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        size: tuple[int, int],
        *,
        both: bool = True,
        image: Tensor | None = None,
    ) -> Conditions:
        """Prompts as the stock pipeline of the family encodes them.

        ``both`` puts the rows of ``negatives`` (one for each prompt; all empty is none) before
        those of ``prompts``.  ``size`` is that of the pictures (height, width).  ``image`` [B, D]
        are unit embeddings of pictures by the CLIP that the shipped model reads with, one for each
        prompt; the rows of negatives do not see them.

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
        if self.family == "own":
            return self._own(prompts, negatives if both else (), image)
        if image is not None:
            raise CannotDo("This pipeline takes no embeddings of pictures.", hint="Use words.")
        asked: dict[str, Any] = {
            "prompt": list(prompts),
            "device": self._execution_device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": both,
            "negative_prompt": list(negatives) if any(negatives) else None,
        }
        stock = stock_pipeline(self)
        report_cuts(self, [*prompts, *(negatives if both else ())])
        with torch.no_grad(), hushed():
            if self.family == "sdxl":
                return self._sdxl(stock.encode_prompt(**asked), size, both=both)
            if self.family == "pixart":
                asked["negative_prompt"] = asked["negative_prompt"] or ""
                asked["clean_caption"] = cleans_captions()
                asked["max_sequence_length"] = self.config.max_sequence_length
                return self._pixart(stock.encode_prompt(**asked), size, both=both)
            words, without = stock.encode_prompt(**asked)
            return Conditions(torch.cat([without, words]) if both else words)

    def _own(
        self, prompts: Sequence[str], negatives: Sequence[str], image: Tensor | None
    ) -> Conditions:
        """Words, and embeddings of pictures, for the shipped model."""
        width = self.transformer.config.embed_width
        if image is not None and image.shape != (len(prompts), width):
            raise ShapeError(
                f"Embeddings of pictures must be [{len(prompts)}, {width}], not "
                f"{list(image.shape)}."
            )
        report_cuts(self, [*prompts, *negatives])
        words = read_words(self.text_encoder, self.tokenizer, [*negatives, *prompts])
        if image is None:
            return Conditions(words.states, words.mask, words.pooled)
        unseen = image.new_zeros(len(negatives), width)
        shown = torch.cat([unseen[:, 0], image.new_ones(len(prompts))])
        both = torch.cat([unseen, image]).to(words.states.device)
        return Conditions(words.states, words.mask, words.pooled, image=both,
                          shown=shown.to(words.states.device))  # fmt: skip

    def _sdxl(self, found: Any, size: tuple[int, int], *, both: bool) -> Conditions:
        words, without, pooled, pooled_without = found
        text = torch.cat([without, words]) if both else words
        pool = torch.cat([pooled_without, pooled]) if both else pooled
        sizes = torch.tensor([[*size, 0, 0, *size]], dtype=text.dtype, device=text.device)
        return Conditions(text, pooled=pool, sizes=sizes.repeat(len(text), 1))

    def _pixart(self, found: Any, size: tuple[int, int], *, both: bool) -> Conditions:
        words, mask, without, mask_without = found
        text = torch.cat([without, words]) if both else words
        read = torch.cat([mask_without, mask]) if both else mask
        shape = None
        if self.transformer.config.sample_size == 128:
            stated = [[*size, size[0] / size[1]]]
            shape = torch.tensor(stated, dtype=text.dtype, device=text.device)
            shape = shape.repeat(len(text), 1)
        return Conditions(text, mask=read, shape=shape)

    # ----------------------------------------------------------------------- models

    def predict(self, given: Tensor, time: Any, words: Conditions) -> Tensor:
        """The denoiser's output [N, C, h, w] for inputs [N, C, h, w] at a scheduler's time step.

        Where the model also predicts a variance, that half is dropped.
        """
        if self.family == "own":
            times = torch.as_tensor(time, device=given.device).reshape(1).expand(len(given))
            own: Tensor = self.transformer(
                given, times, words.text, words.mask, words.pooled, words.image, words.shown
            )
            return own
        if self.transformer is None:
            added = None
            if words.pooled is not None:
                added = {"text_embeds": words.pooled, "time_ids": words.sizes}
            output = self.unet(
                given, time, encoder_hidden_states=words.text, added_cond_kwargs=added,
                return_dict=False,
            )[0]  # fmt: skip
        else:
            times = torch.as_tensor(time, device=given.device).reshape(1).expand(len(given))
            added = {"resolution": None, "aspect_ratio": None}
            if words.shape is not None:
                added = {"resolution": words.shape[:, :2], "aspect_ratio": words.shape[:, 2:]}
            output = self.transformer(
                given, encoder_hidden_states=words.text, timestep=times,
                encoder_attention_mask=words.mask, added_cond_kwargs=added, return_dict=False,
            )[0]  # fmt: skip
        kept: Tensor = output[:, : given.shape[1]]
        return kept

    def picture(self, latents: Tensor, decode: Decode = "vae") -> Tensor:
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
            signed = self.tiny.decode(latents / self.tiny.config.scaling_factor, return_dict=False)[
                0
            ]
        elif decode == "vae":
            signed = self.vae.decode(self._to_vae(latents), return_dict=False)[0]
        else:
            raise CannotDo(f"{decode!r} gives no picture; allowed: vae, tiny, preview.")
        unit: Tensor = (signed / 2 + 0.5).clamp(0, 1)
        return unit

    def _to_vae(self, latents: Tensor) -> Tensor:
        """Latents of unit scale as the VAE counts them."""
        config = self.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean and std:
            middle, spread = (latents.new_tensor(each).view(1, -1, 1, 1) for each in (mean, std))
            scaled: Tensor = latents * spread / config.scaling_factor
            return scaled + middle
        moved: Tensor = latents / config.scaling_factor
        shift = getattr(config, "shift_factor", None)
        return moved + shift if shift else moved

    def _previewed(self, latents: Tensor) -> Tensor:
        if self.config.preview is None:
            self.fit_preview(self._sample_latents())
        table = latents.new_tensor(self.config.preview)
        colours = torch.einsum("bchw,cr->brhw", latents, table[:-1]) + table[-1].view(1, 3, 1, 1)
        return F.interpolate(colours, scale_factor=float(self.factor), mode="bilinear")

    def _sample_latents(self) -> Tensor:
        """Random smooth latents [8, C, 16, 16], the same at every call."""
        parameter = next(self.vae.parameters())
        stream = torch.Generator().manual_seed(0)
        shape = (8, int(self.denoiser.config.in_channels))
        coarse = torch.randn(*shape, 4, 4, generator=stream)
        fine = torch.randn(*shape, 16, 16, generator=stream)
        smooth = F.interpolate(coarse, size=(16, 16), mode="bilinear") + 0.3 * fine
        return smooth.to(parameter.device, parameter.dtype)

    @torch.no_grad()
    def fit_preview(self, latents: Tensor) -> float:
        """Fit the linear preview to the VAE on latents [N, C, h, w]: ordinary least squares.

        Returns the share of the colours' variance that it explains, at most 1.
        """
        colours = self.vae.decode(self._to_vae(latents), return_dict=False)[0].clamp(-1, 1)
        table, explained = preview_table(latents, colours)
        self.register_to_config(preview=table)
        return explained
