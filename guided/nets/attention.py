"""How diffusers' transformers compute attention: by device, and with norms that keep it soft.

Muon moves all directions of a matrix alike, and nothing else bounds the products of queries and
keys: without norms they grow until attention is a choice of one token, and until the -10000 that
hides a token hides it no more.
Source: Dehghani et al. 2023 (ViT-22B), section 2, norms of queries and keys.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

_EPS = 1e-6


class PlainAttention(AttnProcessor):  # type: ignore[misc]
    """Attention as plain products, with the norms of queries and keys that a layer has."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *given: Any,
        **more: Any,
    ) -> Tensor:
        """Tokens [N, Q, W] that look at themselves or at other tokens [N, L, W2]."""
        if attn.norm_q is None and attn.norm_k is None:
            plain: Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, *given, **more
            )
            return plain
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attention_parts(attn, hidden_states, seen)
        mask = attn.prepare_attention_mask(attention_mask, seen.shape[1], len(seen))
        found = torch.bmm(attn.get_attention_scores(query, key, mask), value)
        return attention_end(attn, found)


def attention_parts(attn: Any, tokens: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of ``tokens`` [N, Q, W], and keys and values of ``seen`` [N, L, W2], normed as the
    layer wants them: each [N * heads, Q or L, width of a head].
    """
    query, key, value = (
        attn.head_to_batch_dim(part(given))
        for part, given in ((attn.to_q, tokens), (attn.to_k, seen), (attn.to_v, seen))
    )
    return normed(attn.norm_q, query), normed(attn.norm_k, key), value


def attention_end(attn: Any, found: Tensor) -> Tensor:
    """What a layer gives for what its heads found, [N * heads, Q, width of a head]."""
    out = attn.batch_to_head_dim(found)
    for layer in attn.to_out:
        out = layer(out)
    mixed: Tensor = out / attn.rescale_output_factor
    return mixed


def normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    """Queries or keys [..., width of a head] under a layer's norm, where it has one."""
    if norm is None:
        return x
    found: Tensor = norm(x).to(x.dtype)
    return found


def norm_attention(net: nn.Module) -> None:
    """Give every attention layer of a net norms of its queries and keys, fresh."""
    for layer in net.modules():
        if isinstance(layer, Attention):
            width = layer.inner_dim // layer.heads
            layer.norm_q = nn.LayerNorm(width, eps=_EPS)
            layer.norm_k = nn.LayerNorm(width, eps=_EPS)


def suit_attention(net: Any, device: torch.device) -> None:
    """Compute a model's attention as suits a device; the weights and the function are the same.

    On a CPU plain products: the backward pass of torch's fused attention there takes half of a
    training step over so few tokens.
    """
    net.set_attn_processor(PlainAttention() if device.type == "cpu" else AttnProcessor2_0())
