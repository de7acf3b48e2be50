"""The causal text tower of an open_clip model, run over the real length of its texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def end_positions(ids: Tensor, eos_id: int | None) -> Tensor:
    """The place [N] of each text's end token in ids [N, L] (the largest id without ``eos_id``)."""
    return ids.argmax(1) if eos_id is None else (ids == eos_id).int().argmax(1)


def encode_trimmed(clip: Any, ids: Tensor, buckets: int = 1) -> Tensor:
    """Text features [N, D], not normalised, of ids [N, L] with L up to the context length.

    Equal to ``clip.encode_text`` up to rounding, for a causal tower that pools at the end token:
    what stands behind that token cannot reach it.  With ``buckets`` the texts are encoded in that
    many groups of like length.
    """
    pool = getattr(clip, "text_pool_type", "argmax")
    eos_id = getattr(clip, "text_eos_id", None) if pool == "eos" else None
    ends = end_positions(ids, eos_id)
    if buckets <= 1 or len(ids) < 2 * buckets:
        return _encode(clip, ids[:, : int(ends.max()) + 1], ends)
    order = ends.argsort()
    found = [
        _encode(clip, ids[part][:, : int(ends[part].max()) + 1], ends[part])
        for part in order.chunk(buckets)
    ]
    return torch.cat(found)[order.argsort()]


def _encode(clip: Any, ids: Tensor, ends: Tensor) -> Tensor:
    length = ids.shape[1]
    dtype = clip.transformer.get_cast_dtype()
    states = clip.token_embedding(ids).to(dtype) + clip.positional_embedding[:length].to(dtype)
    states = clip.transformer(states, attn_mask=clip.attn_mask[:length, :length])
    x: Tensor = clip.ln_final(states[torch.arange(len(ids), device=ids.device), ends])
    projection = clip.text_projection
    if projection is None:
        return x
    features: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return features
