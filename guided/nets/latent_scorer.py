"""A small transformer that embeds latents as a CLIP embeds their pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_FREQUENCIES = 32
_HEAD = 32


class _Block(nn.Module):
    """Self-attention and a two-layer perceptron, normalised before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, L, width]."""
        rows, length, width = x.shape
        packed = self.qkv(self.norm1(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in packed.unbind(2))
        # Plain products: over so few tokens a CPU's fused attention is slow to differentiate.
        near = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
        seen = (near @ v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(seen)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class LatentNet(nn.Module):
    """Latents [B, channels, side, side] at noise levels [B] in [0, 1] to features [B, features]."""

    def __init__(
        self,
        channels: int,
        side: int,
        features: int,
        width: int = 128,
        layers: int = 3,
        patch: int = 2,
    ) -> None:
        super().__init__()
        self.shape = {
            "channels": channels, "side": side, "features": features, "width": width,
            "layers": layers, "patch": patch,
        }  # fmt: skip
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, width))
        self.level = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(layers)))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, features)

    def forward(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Features [B, features], not normalised."""
        tokens = self.patches(latents).flatten(2).transpose(1, 2) + self.pos_embed
        steps = torch.arange(_FREQUENCIES, device=noise.device, dtype=torch.float32)
        waves = noise.float()[:, None] * math.pi * torch.exp(steps * (math.log(64) / _FREQUENCIES))
        told = self.level(torch.cat([waves.sin(), waves.cos()], 1).to(tokens.dtype))
        out: Tensor = self.head(self.last(self.blocks(tokens + told[:, None])).mean(1))
        return out
