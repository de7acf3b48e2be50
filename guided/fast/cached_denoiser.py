"""A denoiser that was told its words once: what does not change from step to step is kept.

The function of ``PortraitDenoiser``, to rounding, for inference on a CPU: the words' keys and
values are computed once a run, the time step's embedding once a step and not once a row, and what
is left are packed products and few operations besides.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor
from torch.nn import functional

from guided.fast.packed_linear import PackedGelu, PackedLinear, kernels_there
from guided.nets.attention import PlainAttention, normalized
from guided.nets.denoiser import PortraitDenoiser

_PLAIN = (PlainAttention, AttnProcessor2_0)


class CachedDenoiser:
    """A denoiser with packed layers and what it is told: N rows, as ``PortraitDenoiser`` takes it.

    ``words`` are the arguments from ``encoder_hidden_states`` on.
    """

    @torch.no_grad()
    def __init__(self, denoiser: PortraitDenoiser, words: tuple[Any, ...]) -> None:
        self._net: Any = denoiser.net
        net = self._net
        heard, read, self._more = denoiser.encode_condition(net.proj_out.weight.dtype, *words)
        tokens = net.caption_projection(heard)
        self._mask = ((1 - read) * -10000.0)[:, None, None]
        self._heads = net.config.num_attention_heads
        blocks = net.transformer_blocks
        self._words = [
            self._val_set(block.attn2, block.attn2.to_k(tokens), block.attn2.to_v(tokens))
            for block in blocks
        ]
        tables = torch.stack([block.scale_shift_table for block in blocks])
        tables[:, (1, 4)] += 1  # norms are scaled by 1 + scale
        self._tables = tables[:, None]
        self._last = net.scale_shift_table[None] + tables.new_tensor([[0.0], [1.0]])

    @staticmethod
    def takes(denoiser: PortraitDenoiser) -> bool:
        """Whether a denoiser's layers are packed, and frozen on a CPU."""
        net: Any = denoiser.net
        weight = net.proj_out.weight
        return (
            isinstance(net.proj_out, PackedLinear)
            and weight.device.type == "cpu"
            and not weight.requires_grad
            and kernels_there(weight.dtype)
        )

    def fits(self, given: Tensor) -> bool:
        """Whether these inputs can go the quick way: nothing to differentiate, nothing replaced."""
        blocks = self._net.transformer_blocks
        return (
            len(given) == len(self._more)
            and given.dtype == self._more.dtype
            and not (torch.is_grad_enabled() and given.requires_grad)
            and all(_plain(each.processor) for b in blocks for each in (b.attn1, b.attn2))
        )

    @torch.no_grad()
    def __call__(self, latents: Tensor, time: Tensor) -> Tensor:
        """The output [N, C, h, w] for latents [N, C, h, w] at one time step []."""
        net = self._net
        rows, (high, wide) = len(latents), latents.shape[2:]
        x = net.pos_embed(latents)
        own = net.adaln_single
        steps = own.emb.time_proj(time.reshape(1)).to(x.dtype)
        now = own.emb.timestep_embedder(steps) + self._more
        changes = own.linear(functional.silu(now)).view(1, rows, 6, -1) + self._tables
        flat = x.reshape(-1, x.shape[2])
        for block, words, change in zip(net.transformer_blocks, self._words, changes, strict=True):
            flat = self._block(block, flat, words, change.unsqueeze(2).unbind(1))
        shift, scale = (self._last + now[:, None]).split(1, dim=1)
        x = _moved(flat, net.norm_out.eps, shift, scale)
        side = net.config.patch_size
        x = net.proj_out.product(x).view(rows, high // side, wide // side, side, side, -1)
        output: Tensor = x.permute(0, 5, 1, 3, 2, 4).reshape(rows, -1, high, wide)
        return output

    def _block(
        self, block: Any, x: Tensor, words: tuple[Tensor, Tensor], change: tuple[Tensor, ...]
    ) -> Tensor:
        """One block on tokens [N * T, width]; each of six changes is [N, 1, width]."""
        shift, scale, gate, shift_up, scale_up, gate_up = change
        own, told = block.attn1, block.attn2
        a = _moved(x, block.norm1.eps, shift, scale)
        seen = self._seen(own, a, self._val_set(own, own.to_k.product(a), own.to_v.product(a)))
        x = _gated(x, gate, own.to_out[0].product(seen))
        seen = self._seen(told, x, words, self._mask)
        x = told.to_out[0].product(seen, onto=x)
        a = _moved(x, block.norm2.eps, shift_up, scale_up)
        up: PackedGelu = block.ff.net[0]
        return _gated(x, gate_up, block.ff.net[2].product(up(a)))

    def _seen(self, own: Any, x: Tensor, kept: tuple[Tensor, ...], mask: Any = None) -> Tensor:
        """What attention reads [N * T, width]."""
        query = normalized(own.norm_q, self._split(own.to_q.product(x)))
        keys, values = kept
        found = functional.scaled_dot_product_attention(query, keys, values, mask, scale=own.scale)
        return found.transpose(1, 2).reshape(x.shape)

    def _val_set(self, own: Any, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values by heads, as the layer looks at them."""
        return normalized(own.norm_k, self._split(keys)), self._split(values)

    def _split(self, x: Tensor) -> Tensor:
        """Heads [N, heads, T, width / heads] of tokens [N * T, width] or [N, T, width]."""
        return x.view(len(self._more), -1, self._heads, x.shape[-1] // self._heads).transpose(1, 2)


def _plain(processor: Any) -> bool:
    """Whether a layer computes attention as always, with nothing that changes it."""
    return type(processor) in _PLAIN and getattr(processor, "change", None) is None


def _moved(x: Tensor, eps: float, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) * scale + shift for tokens [N * T, width] and changes [N, 1, width]."""
    normalized = functional.layer_norm(x, x.shape[1:], eps=eps).view(len(shift), -1, x.shape[1])
    return torch.addcmul(shift, normalized, scale).view(x.shape)


def _gated(x: Tensor, gate: Tensor, change: Tensor) -> Tensor:
    """x + gate * change for tokens [N * T, width] and gates [N, 1, width]."""
    shape = (len(gate), -1, x.shape[1])
    return torch.addcmul(x.view(shape), gate, change.view(shape)).view(x.shape)
