"""The causal text tower of an open_clip model, run over the real length of its texts.

``parts`` is the module that holds the token embedding, the blocks and the projection: an open_clip
``CLIP``, or the ``text`` of a ``CustomTextCLIP``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class TextReading(NamedTuple):
    """Texts token by token: ``states`` [N, L, W] after the last norm, ``mask`` [N, L] bool (up to
    the end token), and the features ``pooled`` [N, D], not normalised.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor


def is_causal(parts: Any) -> bool:
    """True for open_clip's own causal text transformer that pools at the end token."""
    needed = ("token_embedding", "positional_embedding", "transformer", "ln_final")
    if not all(hasattr(parts, name) for name in needed):
        return False
    return (
        isinstance(getattr(parts, "attn_mask", None), Tensor)
        and _pool(parts) in ("argmax", "eos")
        and getattr(parts, "cls_emb", None) is None
        and not getattr(parts, "use_pad_mask", False)
        and len(parts.positional_embedding) == len(parts.attn_mask)
    )


def end_positions(parts: Any, ids: Tensor) -> Tensor:
    """The place [N] of the token of ids [N, L] that is pooled: the end token."""
    if _pool(parts) == "eos":
        return (ids == getattr(parts, "text_eos_id", getattr(parts, "eos_id", 0))).int().argmax(-1)
    return ids.argmax(-1)


def read_texts(parts: Any, ids: Tensor) -> TextReading:
    """What a tower without an own way to pool reads in ids [N, L]: states and features."""
    length = ids.shape[1]
    dtype = parts.transformer.get_cast_dtype()
    x = parts.token_embedding(ids).to(dtype) + parts.positional_embedding[:length].to(dtype)
    x = parts.transformer(x, attn_mask=parts.attn_mask[:length, :length].to(dtype))
    states = parts.ln_final(x)
    ends = end_positions(parts, ids)
    mask = torch.arange(length, device=ids.device) <= ends[:, None]
    pooled = states[torch.arange(len(x), device=x.device), ends] @ parts.text_projection
    return TextReading(states, mask, pooled)


def encode_causal(parts: Any, ids: Tensor) -> Tensor:
    """Features [N, D], not normalised, of ids [N, L] for any L up to the context length.

    The final norm acts on each token alone, so it follows the pooling; it and the projection run
    in float32 whatever the precision of the blocks.
    """
    length = ids.shape[1]
    dtype = parts.transformer.get_cast_dtype()
    x = parts.token_embedding(ids).to(dtype) + parts.positional_embedding[:length].to(dtype)
    x = parts.transformer(x, attn_mask=parts.attn_mask[:length, :length].to(dtype))
    rows = torch.arange(len(x), device=x.device)
    norm, pooled = parts.ln_final, x[rows, end_positions(parts, ids)].float()
    pooled = functional.layer_norm(
        pooled, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps
    )
    projection = parts.text_projection
    if projection is None:
        return pooled
    if isinstance(projection, nn.Linear):
        bias = None if projection.bias is None else projection.bias.float()
        return functional.linear(pooled, projection.weight.float(), bias)
    result: Tensor = pooled @ projection.float()
    return result


def encode_trimmed(parts: Any, ids: Tensor, buckets: int = 1) -> Tensor:
    """``encode_causal`` of ids [N, L], cut behind the last end token: equal up to rounding.

    What stands behind a text's end token cannot reach it.  With ``buckets`` the texts are encoded
    in that many groups of like length.
    """
    ends = end_positions(parts, ids)
    if buckets <= 1 or len(ids) < 2 * buckets:
        return encode_causal(parts, ids[:, : int(ends.max()) + 1])
    order = ends.argsort()
    found = [
        encode_causal(parts, ids[part][:, : int(ends[part].max()) + 1])
        for part in order.chunk(buckets)
    ]
    return torch.cat(found)[order.argsort()]


def _pool(parts: Any) -> str:
    pool: str = getattr(parts, "text_pool_type", getattr(parts, "pool_type", ""))
    return pool
