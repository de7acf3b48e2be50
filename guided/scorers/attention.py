"""Self-attention of open_clip's blocks without the detour of ``nn.MultiheadAttention``.

PyTorch's module turns its batch-first input round before the first product, which then copies
the weights once for each position on CPUs: up to half of a tower's time in bf16.  The module here
has the same parameters under the same names and computes the same function.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """The self-attention of a trained ``nn.MultiheadAttention``, whose parameters it shares."""

    def __init__(self, trained: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = trained.num_heads
        self.in_proj_weight = trained.in_proj_weight
        self.in_proj_bias = trained.in_proj_bias
        self.out_proj = trained.out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        attn_mask: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Tokens [B, L, D] after attention among them; ``key`` and ``value`` are the query.

        ``attn_mask`` is additive, [L, L] or [B * heads, L, L].
        """
        batch, length, width = query.shape
        packed = functional.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = packed.view(batch, length, 3, self.num_heads, width // self.num_heads).unbind(2)
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.view(batch, self.num_heads, length, length)
        mixed = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=attn_mask
        )
        joined = mixed.transpose(1, 2).reshape(batch, length, width)
        return functional.linear(joined, self.out_proj.weight, self.out_proj.bias), None


@torch.no_grad()
def patch_attention(model: nn.Module) -> int:
    """Replace the attention of open_clip's residual blocks in a model; returns how many.

    Only plain self-attention is replaced (packed weights, batch first, no dropout, no added
    biases); whatever else a tower has stays as it is.
    """
    from open_clip.transformer import ResidualAttentionBlock

    replaced = 0
    for block in model.modules():
        if not isinstance(block, ResidualAttentionBlock) or hasattr(block, "ln_1_kv"):
            continue
        attention = block.attn
        if plain_attention(attention):
            block.attn = SelfAttention(attention)
            replaced += 1
    return replaced


def plain_attention(attention: nn.Module | None) -> TypeGuard[nn.MultiheadAttention]:
    """True for self-attention with packed weights, batch first, no dropout, no added biases."""
    return (
        isinstance(attention, nn.MultiheadAttention)
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and attention.dropout == 0
    )
