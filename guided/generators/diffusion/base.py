"""Diffusion model families: the protocol between a kind of pipeline and everything else here.

A family is one file.  It says which classes its parts may have, how prompts become conditioning,
how the denoiser is called at a scheduler's time step, and how latents are laid out.  What most
families share is the default here: latents [B, C, h, w] of unit scale under an autoencoder of
diffusers', and a denoiser that reads as many channels as those have.  A family whose denoiser wants
another layout (packed tokens), counts time otherwise, or is told the strength of guidance turns its
inputs inside ``predict``; the loop outside never sees it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from guided.errors import CannotDo, UsageError
from guided.generators.diffusion.sizes import check_sizes

if TYPE_CHECKING:
    from guided.generators.diffusion.pipeline import GuidedPipeline

#: The classes, "library.Class", of parts that are alike in many families.
VAE = ("diffusers.AutoencoderKL", "diffusers.AutoencoderTiny",
       "guided.nets.folded_autoencoder.FoldedAutoencoderKL")  # fmt: skip
TINY = ("diffusers.AutoencoderTiny", "guided.nets.folded_autoencoder.FoldedAutoencoderTiny")
CLIP_TEXT = ("transformers.CLIPTextModel", "transformers.CLIPTextModelWithProjection")
CLIP_TOKENIZER = (
    "transformers.CLIPTokenizer", "transformers.CLIPTokenizerFast",
)  # fmt: skip
ANY_TOKENIZER = ("transformers.PreTrainedTokenizerFast", "transformers.TokenizersBackend")
_TEXT_PARTS = ("text_encoder", "tokenizer")
DENOISERS = ("unet", "transformer")


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts of N rows; N is twice the batch where rows without words come first.

    ``text`` [N, L, D], ``mask`` [N, L] (1 is read), ``pooled`` [N, P].  A family adds fields.
    """

    text: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None


@dataclass(frozen=True)
class PromptBatch:
    """Prompts to encode, and ``negatives``: one for each prompt, or none at all.

    ``size`` is that of the images (height, width).  ``image`` [B, D] are unit embeddings of images,
    one for each prompt, for families with ``takes_image_embeddings``; the negatives see none.
    ``cfg`` is the scale of guidance, for families with ``embeds_guidance``.
    """

    prompts: Sequence[str]
    negatives: Sequence[str]
    size: tuple[int, int]
    image: Tensor | None = None
    cfg: float = 1.0


C = TypeVar("C", bound=Conditioning)
#: Names ("library.Class") of classes, by part.
Classes = Mapping[str, Sequence[str]]
Predict = Callable[[Tensor, Any], Tensor]


class Family(ABC, Generic[C]):
    """A family of diffusion models; one object serves every pipeline of the family.

    ``classes`` holds, for each part, the classes ("library.Class") that a folder's index may name:
    nothing else is ever loaded.  ``denoiser`` is the part that predicts, "unet" or "transformer";
    ``required`` are parts that tell the family from others.  ``cfg`` is the scale of
    classifier-free guidance that suits it.  ``takes_image_embeddings``: its prompts may come with
    CLIP embeddings of images.  ``embeds_guidance``: it is told the scale of guidance as a number,
    and runs once a step, without negatives.  ``latent_scorer``: the scorer of latents reads its
    latents.  ``joins_windows``: its denoiser takes text of any length with a mask, so that a long
    prompt may be read in windows.  ``text_width`` is the key of the denoiser's settings for the
    width of the texts that it reads: that of the text encoder, of several together ("": not
    compared).
    """

    name: ClassVar[str]
    denoiser: ClassVar[str]
    classes: ClassVar[Classes]
    required: ClassVar[Sequence[str]] = ()
    cfg: ClassVar[float]
    takes_image_embeddings: ClassVar[bool] = False
    embeds_guidance: ClassVar[bool] = False
    latent_scorer: ClassVar[bool] = False
    joins_windows: ClassVar[bool] = False
    text_width: ClassVar[str] = ""

    # ----------------------------------------------------------------------- parts

    def fits(self, parts: Classes) -> bool:
        """Whether parts, each with the names of its class and its bases, are of this family."""
        if not any(kind in self.classes[self.denoiser] for kind in parts.get(self.denoiser, ())):
            return False
        named = {part for part in parts if part.startswith(_TEXT_PARTS)}
        return named <= set(self.classes) and set(self.required) <= set(parts)

    def settings(self, pipeline_class: str) -> dict[str, Any]:
        """Settings of the GuidedPipeline of a folder that a pipeline of that class has saved."""
        return {}

    def prepare(self, pipe: GuidedPipeline) -> None:
        """Check the parts of a new pipeline, and correct their settings where that is due.

        Raises:
            CannotDo: a denoiser that asks for more than noisy latents, a time step and words.
            CorruptWeights: parts of different models.
        """
        check_supported(pipe.denoiser)
        check_sizes(pipe)

    def optimize(self, pipe: GuidedPipeline, device: torch.device) -> None:
        """Make a pipeline's denoiser fast on the device that it was put on."""

    # ----------------------------------------------------------------------- text

    @abstractmethod
    def encode_prompt(self, pipe: GuidedPipeline, batch: PromptBatch) -> C:
        """The conditioning of a batch: rows of its negatives where it has any, then its prompts."""

    def token_limit(self, pipe: GuidedPipeline) -> int:
        """How many tokens of a prompt the model reads."""
        return int(pipe.tokenizer.model_max_length)

    def normalize_prompt(self, text: str) -> str:
        """A prompt as the tokenizer gets it."""
        return " ".join(text.split())

    # ----------------------------------------------------------------------- denoiser

    @abstractmethod
    def predict(self, pipe: GuidedPipeline, x_t: Tensor, time: Any, conditioning: C) -> Tensor:
        """The denoiser's own output [N, C, h, w] for ``x_t`` [N, C, h, w].

        ``time`` is the scheduler's time step.  Where the model also predicts a variance, that half
        is dropped.
        """

    def schedule(
        self, pipe: GuidedPipeline, scheduler: Any, size: tuple[int, int] | None = None
    ) -> Any:
        """A fresh scheduler as it suits images of ``size`` (height, width), or of the model's own.

        For models of flows whose time steps are shifted by the number of latents.
        """
        return scheduler

    def bind(self, pipe: GuidedPipeline, conditioning: C) -> Predict:
        """``predict`` with its conditioning given, for a whole run."""
        return partial(_bound, self, pipe, conditioning)

    def attention_net(self, pipe: GuidedPipeline) -> Any:
        """The module of diffusers' whose attention processors read the words."""
        return pipe.denoiser

    # ----------------------------------------------------------------------- latents

    def latent_shape(
        self, pipe: GuidedPipeline, size: tuple[int, int] | None = None
    ) -> tuple[int, int, int]:
        """Channels, height and width of the latents of images of ``size`` (height, width).

        Raises:
            UsageError: a size that is not a multiple of what one cell of the model covers.
        """
        config, factor = pipe.denoiser.config, pipe.factor
        side = config.sample_size
        rows, columns = (side, side) if isinstance(side, int) else side
        height, width = size or (rows * factor, columns * factor)
        cell = factor * int(getattr(config, "patch_size", None) or 1)
        if min(height, width) < cell or height % cell or width % cell:
            near = " x ".join(str(max(1, round(each / cell)) * cell) for each in (width, height))
            raise UsageError(
                f"Pictures of {width} x {height} pixels are not a multiple of {cell} "
                f"from {cell} up.",
                hint=f"The nearest size that is: {near}.",
            )
        return int(config.in_channels), height // factor, width // factor

    def to_vae(self, pipe: GuidedPipeline, latents: Tensor) -> Tensor:
        """Latents of unit scale as the autoencoder counts them."""
        config = pipe.vae.config
        stats = _stats(config, latents)
        if stats is not None:
            middle, spread = stats
            scaled: Tensor = latents * spread / config.scaling_factor
            return scaled + middle
        moved: Tensor = latents / config.scaling_factor
        shift = getattr(config, "shift_factor", None)
        return moved + shift if shift else moved

    def from_vae(self, pipe: GuidedPipeline, encoded: Tensor) -> Tensor:
        """An autoencoder's latents at unit scale: the inverse of ``to_vae``."""
        config = pipe.vae.config
        stats = _stats(config, encoded)
        if stats is not None:
            middle, spread = stats
            scaled: Tensor = (encoded - middle) * config.scaling_factor / spread
            return scaled
        shift = getattr(config, "shift_factor", None)
        moved: Tensor = (encoded - shift if shift else encoded) * config.scaling_factor
        return moved


def _bound(
    family: Family[C], pipe: GuidedPipeline, conditioning: C, x_t: Tensor, time: Any
) -> Tensor:
    return family.predict(pipe, x_t, time, conditioning)


def _stats(config: Any, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation of an autoencoder's channels [1, C, 1, 1], where its settings say them."""
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if not mean or not std:
        return None
    middle, spread = (like.new_tensor(each).view(1, -1, 1, 1) for each in (mean, std))
    return middle, spread


def check_supported(denoiser: Any) -> None:
    """Refuse denoisers that ask for more than noisy latents, a time step and words.

    Raises:
        CannotDo: a distilled one that is told the strength of guidance.
    """
    if denoiser.config.get("time_cond_proj_dim"):
        raise CannotDo(
            "This denoiser was distilled to be told the strength of guidance (time_cond_proj_dim), "
            "which is not supported.",
            hint="Take the model that it was distilled from.",
        )
