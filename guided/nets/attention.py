"""How diffusers' transformers compute attention, by device."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0


def suit_attention(net: Any, device: torch.device) -> None:
    """Compute a model's attention as suits a device; the weights and the function are the same.

    On a CPU plain products: the backward pass of torch's fused attention there takes half of a
    training step over so few tokens.
    """
    net.set_attn_processor(AttnProcessor() if device.type == "cpu" else AttnProcessor2_0())
