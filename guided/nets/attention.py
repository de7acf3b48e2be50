"""How diffusers' transformers compute attention: by device, and with norms that keep it soft.

Muon moves all directions of a matrix alike, and nothing else bounds the products of queries and
keys: without norms they grow until attention is a choice of one token, and until the -10000 that
hides a token hides it no more.
Source: Dehghani et al. 2023 (ViT-22B), section 2, norms of queries and keys.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

_EPS = 1e-6


class Change(Protocol):
    """Turns attention [N, heads, Q, L], to ``words`` or of tokens among themselves, into other."""

    def __call__(self, probabilities: Tensor, *, words: bool) -> Tensor:
        """Attention of the same shape."""
        ...


class PlainAttention:
    """Attention as plain products, with the norms of queries and keys that a layer has.

    ``change`` may turn attention [N, heads, Q, L] into other attention before values are read.
    """

    def __init__(self, change: Change | None = None) -> None:
        self.change = change

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """Tokens [N, Q, W] that look at themselves or at other tokens [N, L, W2]."""
        given = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = normalized(attn.norm_q, attn.head_to_batch_dim(attn.to_q(hidden_states)))
        key = normalized(attn.norm_k, attn.head_to_batch_dim(attn.to_k(given)))
        value = attn.head_to_batch_dim(attn.to_v(given))
        mask = attn.prepare_attention_mask(attention_mask, given.shape[1], len(given))
        seen = attn.get_attention_scores(query, key, mask)
        if self.change is not None:
            split = seen.view(len(given), attn.heads, *seen.shape[1:])
            split = self.change(split, words=encoder_hidden_states is not None)
            seen = split.reshape(seen.shape)
        out = attn.batch_to_head_dim(torch.bmm(seen, value))
        for layer in attn.to_out:
            out = layer(out)
        mixed: Tensor = out / attn.rescale_output_factor
        return mixed


def normalized(norm: nn.Module | None, x: Tensor) -> Tensor:
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


def set_attention_backend(net: Any, device: torch.device) -> None:
    """Compute a model's attention as suits a device; the weights and the function are the same.

    On a CPU plain products: the backward pass of torch's fused attention there takes half of a
    training step over so few tokens.
    """
    net.set_attn_processor(PlainAttention() if device.type == "cpu" else AttnProcessor2_0())
