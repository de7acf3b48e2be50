"""The shipped family: a diffusion transformer told by CLIP, in text and in image embeddings.

Its text encoder is the text half of a CLIP, whose unit embeddings of images it reads as well, so
that one model draws prompts, variations of an image, and what a prior imagines.
Source: Ramesh et al. 2022 (unCLIP) for a decoder of image embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guided.errors import ShapeError
from guided.fast.cached_denoiser import CachedDenoiser
from guided.fast.packed_linear import pack_linears
from guided.generators.diffusion.base import (
    ANY_TOKENIZER,
    CLIP_TEXT,
    CLIP_TOKENIZER,
    TINY,
    VAE,
    Classes,
    Conditioning,
    Family,
    PromptBatch,
)
from guided.generators.diffusion.text import encode_text, report_truncation

if TYPE_CHECKING:
    from guided.generators.diffusion.pipeline import GuidedPipeline

#: Classifier-free guidance: this model obeys text with little.
CFG = 3.0


@dataclass(frozen=True)
class PortraitConditioning(Conditioning):
    """Unit embeddings of images ``image`` [N, D]; rows where ``image_mask`` [N] is 0 see none."""

    image: Tensor | None = None
    image_mask: Tensor | None = None

    @property
    def arguments(self) -> tuple[Tensor | None, ...]:
        """What the denoiser is told, in the order in which it takes it."""
        return self.text, self.mask, self.pooled, self.image, self.image_mask


@dataclass(frozen=True)
class BoundPortrait:
    """The denoiser with its conditioning, which a CPU computes once for a whole run."""

    pipe: GuidedPipeline
    conditioning: PortraitConditioning

    @cached_property
    def quick(self) -> CachedDenoiser | None:
        """The quick form of the denoiser, where it has one."""
        net = self.pipe.transformer
        if self.pipe._execution_device.type != "cpu" or not CachedDenoiser.takes(net):
            return None
        return CachedDenoiser(net, self.conditioning.arguments)

    def __call__(self, x_t: Tensor, time: Any) -> Tensor:
        """The output [N, C, h, w], by the quick form where it fits."""
        if self.quick is not None and self.quick.fits(x_t):
            return self.quick(x_t, torch.as_tensor(time, device=x_t.device))
        return FAMILY.predict(self.pipe, x_t, time, self.conditioning)


class Portrait(Family[PortraitConditioning]):
    """The model of ``guided.nets.denoiser``."""

    name = "portrait"
    denoiser = "transformer"
    classes: ClassVar[Classes] = {
        "transformer": ("guided.nets.denoiser.PortraitDenoiser",),
        "vae": VAE,
        "tiny": TINY,
        "text_encoder": CLIP_TEXT,
        "tokenizer": (*CLIP_TOKENIZER, *ANY_TOKENIZER),
        "prior": ("guided.nets.prior.PortraitPrior",),
    }
    cfg = CFG
    joins_windows = True
    takes_image_embeddings = True
    latent_scorer = True

    def optimize(self, pipe: GuidedPipeline, device: torch.device) -> None:
        """Attention that suits the device, and packed products on a CPU."""
        pipe.transformer.set_attention_backend(device)
        pack_linears(pipe.transformer)

    def token_limit(self, pipe: GuidedPipeline) -> int:
        """How many tokens the text encoder has positions for."""
        return int(pipe.text_encoder.config.max_position_embeddings)

    def encode_prompt(self, pipe: GuidedPipeline, batch: PromptBatch) -> PortraitConditioning:
        """Tokens and pooled text of the CLIP, and embeddings of images for the prompts' rows.

        Raises:
            ShapeError: another number or width of embeddings.
        """
        prompts, negatives, image = batch.prompts, batch.negatives, batch.image
        width = pipe.transformer.config.embed_width
        if image is not None and image.shape != (len(prompts), width):
            raise ShapeError(
                f"Embeddings of pictures must be [{len(prompts)}, {width}], not "
                f"{list(image.shape)}."
            )
        report_truncation(pipe, [*prompts, *negatives])
        text = encode_text(pipe.text_encoder, pipe.tokenizer, [*negatives, *prompts])
        if image is None:
            return PortraitConditioning(text.states, text.mask, text.pooled)
        place, unseen = text.states.device, image.new_zeros(len(negatives), width)
        mask = torch.cat([unseen[:, 0], image.new_ones(len(prompts))])
        both = torch.cat([unseen, image]).to(place)
        return PortraitConditioning(text.states, text.mask, text.pooled, both, mask.to(place))

    def bind(self, pipe: GuidedPipeline, conditioning: PortraitConditioning) -> BoundPortrait:
        """The denoiser told once; without gradients it is quicker on a CPU."""
        return BoundPortrait(pipe, conditioning)

    def predict(
        self, pipe: GuidedPipeline, x_t: Tensor, time: Any, conditioning: PortraitConditioning
    ) -> Tensor:
        """The transformer's output [N, C, h, w]."""
        times = torch.as_tensor(time, device=x_t.device).reshape(1).expand(len(x_t))
        output: Tensor = pipe.transformer(x_t, times, *conditioning.arguments)
        return output

    def attention_net(self, pipe: GuidedPipeline) -> Any:
        """The transformer inside, which is of diffusers'."""
        return pipe.transformer.net


FAMILY = Portrait()
