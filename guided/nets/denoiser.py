"""The denoiser of drawn portraits: diffusers' PixArt transformer, told words and a picture.

Words come as tokens; their pooled embedding and that of a picture also join the embedding of the
time step, and the picture's adds a few tokens of its own.
Source: Chen et al. 2023 (PixArt-alpha); Ramesh et al. 2022 (unCLIP), section 2.1, for the picture.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, PixArtTransformer2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import PixArtAlphaCombinedTimestepSizeEmbeddings
from torch import Tensor, nn

from guided.nets.attention import norm_attention, set_attention_backend


class _TimeAndMore(PixArtAlphaCombinedTimestepSizeEmbeddings):  # type: ignore[misc]
    """PixArt's embedding of the time step, with room for something to add."""

    def forward(
        self,
        timestep: Tensor,
        resolution: Tensor | None,
        aspect_ratio: Tensor | None,
        batch_size: int,
        hidden_dtype: Any,
        more: Tensor | None = None,
    ) -> Tensor:
        """The embedding [N, width]."""
        found: Tensor = super().forward(
            timestep, resolution, aspect_ratio, batch_size, hidden_dtype
        )
        return found if more is None else found + more.to(found.dtype)


class PortraitDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Noisy latents, a time step, words and perhaps a picture's embedding to the model's output.

    ``net`` is a PixArtTransformer2DModel of ``layers`` blocks that are ``width`` wide, with norms
    of queries and keys.  ``text_width`` is that of the words' tokens, ``embed_width`` that of
    pooled embeddings.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 8,
        sample_size: int = 16,
        patch_size: int = 2,
        width: int = 192,
        heads: int = 6,
        layers: int = 5,
        text_width: int = 192,
        embed_width: int = 256,
        image_tokens: int = 4,
    ) -> None:
        super().__init__()
        self.net = PixArtTransformer2DModel(
            num_attention_heads=heads, attention_head_dim=width // heads, in_channels=in_channels,
            out_channels=in_channels, num_layers=layers, cross_attention_dim=width,
            sample_size=sample_size, patch_size=patch_size, caption_channels=text_width,
            norm_type="ada_norm_single", use_additional_conditions=False, interpolation_scale=1,
        )  # fmt: skip
        norm_attention(self.net)
        self.net.adaln_single.emb = _TimeAndMore(width, size_emb_dim=width // 3)
        self.words_time = nn.Linear(embed_width, width)
        self.image_time = nn.Linear(embed_width, width)
        self.image_words = nn.Linear(embed_width, image_tokens * text_width)
        for begin in (self.words_time, self.image_time, self.net.proj_out):
            nn.init.zeros_(begin.weight)
            nn.init.zeros_(begin.bias)

    def set_attention_backend(self, device: torch.device) -> None:
        """Compute attention as suits a device."""
        set_attention_backend(self.net, device)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        pooled: Tensor,
        image: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """The output [N, C, h, w] for latents [N, C, h, w] at time steps [N].

        Words are tokens [N, L, text_width] of which ``encoder_attention_mask`` [N, L] are read,
        and their unit embedding ``pooled`` [N, D].  ``image`` [N, D] are unit embeddings of
        pictures; rows where ``image_mask`` [N] is 0 are told none (None: all see theirs).
        """
        tokens, read, more = self.encode_condition(
            hidden_states.dtype,
            encoder_hidden_states,
            encoder_attention_mask,
            pooled,
            image,
            image_mask,
        )
        output: Tensor = self.net(
            hidden_states, encoder_hidden_states=tokens, timestep=timestep,
            encoder_attention_mask=read, return_dict=False,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None, "more": more},
        )[0]  # fmt: skip
        return output

    def encode_condition(
        self,
        kind: torch.dtype,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        pooled: Tensor,
        image: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What ``forward`` tells the transformer, in a precision: it is the same at every step.

        Tokens [N, L + extra, text_width], which of them are read [N, L + extra], and what is added
        to the embedding of the time step [N, width].
        """
        scale = math.sqrt(pooled.shape[1])
        tokens, read = encoder_hidden_states.to(kind), encoder_attention_mask.to(kind)
        more = self.words_time((scale * pooled).to(kind))
        if image is not None:
            seen = image.new_ones(len(image)) if image_mask is None else image_mask
            given, seen = (scale * image).to(kind), seen.to(kind)[:, None]
            extra = (seen * self.image_words(given)).view(len(image), -1, tokens.shape[2])
            tokens = torch.cat([tokens, extra.to(tokens.dtype)], 1)
            read = torch.cat([read, seen.expand(-1, extra.shape[1])], 1)
            more = more + seen * self.image_time(given)
        return tokens, read, more
