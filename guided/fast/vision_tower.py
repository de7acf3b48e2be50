"""The image tower of a CLIP as plain matrix products, for fast inference on a CPU.

The same function as open_clip's ``VisionTransformer``: norms are folded into the products that
follow, the patches are read from 8-bit pixels, and a tower that pools its class token computes
nothing else in its last block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from guided.fast.linear import (
    Affine,
    Bf16,
    Int8,
    Layer,
    Plain,
    Span,
    balanced,
    hidden_grid,
    in_levels,
    to_levels,
)

PartT_co = TypeVar("PartT_co", covariant=True)
FromT = TypeVar("FromT")
ToT = TypeVar("ToT")
_TOKENS = 1600
_MARGIN = 1.25  # how much larger than in calibration values may become before they are cut


@dataclass(frozen=True)
class Block(Generic[PartT_co]):
    """The four products of a residual block; ``keys`` stands alone where only one token asks.

    ``query`` gives queries, keys and values [M, 3D] in one, or the queries [M, D] where ``keys``
    gives keys and values [M, 2D].  Queries are divided by the root of the head's width.
    """

    query: PartT_co
    keys: PartT_co | None
    out: PartT_co
    up: PartT_co
    down: PartT_co


@dataclass(frozen=True)
class Frame:
    """What surrounds the blocks, in float32.

    ``first`` [1, D] is the class token with its place added, ``places`` [P, D] those of the
    patches, ``pre`` weight and bias of the norm before the blocks (or None) with ``eps``, ``post``
    those of the norm at the end, ``projection`` [D, E] or None.  ``pool`` is "tok" or "avg";
    ``pooled_first``: the last norm follows the pooling.
    """

    size: tuple[int, int]
    patch: tuple[int, int]
    heads: int
    first: Tensor
    places: Tensor
    pre: tuple[Tensor, Tensor, float] | None
    post: tuple[Tensor, Tensor, float]
    projection: Tensor | None
    pool: str
    pooled_first: bool

    @property
    def chunk(self) -> int:
        """Pictures that are computed together: about 1,600 tokens, which caches can hold."""
        return max(1, _TOKENS // (len(self.places) + 1))

    @property
    def rows(self) -> int:
        """Rows of the products of a chunk."""
        return self.chunk * (len(self.places) + 1)


class FastVisionTower:
    """A tower of layers; ``stream`` is the precision of the residual sum, ``inner`` that of the
    attention's products, and ``raw`` says that ``patches`` takes bytes.
    """

    def __init__(
        self,
        frame: Frame,
        patches: Layer,
        blocks: Sequence[Block[Layer]],
        *,
        raw: bool = False,
        stream: torch.dtype = torch.float32,
        inner: torch.dtype = torch.float32,
    ) -> None:
        self.frame, self.patches, self.blocks = frame, patches, blocks
        self._raw, self._stream, self._inner = raw, stream, inner

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Features [B, E], float32, not normalised, of bytes [B, 3, *size] (uint8); B >= 1."""
        chunk = self.frame.chunk
        return torch.cat([self._run(pixels[i : i + chunk]) for i in range(0, len(pixels), chunk)])

    def _run(self, pixels: Tensor) -> Tensor:
        x = self._tokens(pixels)
        batch, length, width = x.shape
        x = x.view(batch * length, width)
        for block in self.blocks:
            x = self._block(block, x, batch, length)
        return self._finish(x.view(batch, -1, width).float())

    def _tokens(self, pixels: Tensor) -> Tensor:
        frame, batch = self.frame, len(pixels)
        high, wide = frame.patch
        tall, broad = frame.size[0] // high, frame.size[1] // wide
        cut = pixels[:, :, : tall * high, : broad * wide]
        cut = cut.reshape(batch, 3, tall, high, broad, wide).permute(0, 2, 4, 1, 3, 5)
        flat = cut.reshape(batch * tall * broad, -1)
        patches = self.patches(flat if self._raw else (flat.float() - 128) / 255)
        x = torch.empty(batch, tall * broad + 1, frame.places.shape[1])
        x[:, 0] = frame.first
        torch.add(patches.view(batch, tall * broad, -1), frame.places, out=x[:, 1:])
        if frame.pre is not None:
            weight, bias, eps = frame.pre
            x = functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
        return x.to(self._stream)

    def _block(self, block: Block[Layer], x: Tensor, batch: int, length: int) -> Tensor:
        heads = self.frame.heads
        if block.keys is None:
            packed = block.query(x).view(batch, length, 3, heads, -1)
            q, k, v = packed.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, -1)
        else:
            both = block.keys(x).view(batch, length, 2, heads, -1)
            k, v = both.permute(2, 0, 3, 1, 4).reshape(2, batch * heads, length, -1)
            x = x.view(batch, length, -1)[:, 0].contiguous()
            q = block.query(x).view(batch * heads, 1, -1)
        weights = torch.bmm(q, k.transpose(1, 2)).float().softmax(-1).to(self._inner)
        mixed = torch.bmm(weights, v).view(batch, heads, q.shape[1], -1).transpose(1, 2)
        x = block.out(mixed.reshape(len(x), -1), x)
        return block.down(block.up(x), x)

    def _finish(self, x: Tensor) -> Tensor:
        frame = self.frame
        weight, bias, eps = frame.post

        def norm(rows: Tensor) -> Tensor:
            return functional.layer_norm(rows, rows.shape[-1:], weight, bias, eps)

        def pool(rows: Tensor) -> Tensor:
            return rows[:, 0] if frame.pool == "tok" else rows[:, 1:].mean(1)

        pooled = norm(pool(x)) if frame.pooled_first or frame.pool == "tok" else pool(norm(x))
        return pooled if frame.projection is None else pooled @ frame.projection


@dataclass(frozen=True)
class Weights:
    """A tower's weights, ready to be packed in one of three ways."""

    frame: Frame
    patches: Affine
    blocks: list[Block[Affine]]


def _mapped(block: Block[FromT], make: Callable[[FromT], ToT]) -> Block[ToT]:
    keys = None if block.keys is None else make(block.keys)
    return Block(make(block.query), keys, make(block.out), make(block.up), make(block.down))


def plain_tower(weights: Weights) -> FastVisionTower:
    """The tower in float32."""
    blocks = [_mapped(block, Plain) for block in weights.blocks]
    return FastVisionTower(weights.frame, Plain(weights.patches), blocks)


def spans(weights: Weights, pixels: Tensor) -> list[Block[Span]]:
    """What values the products of each block meet, in float32, on pictures (bytes)."""
    blocks = [_mapped(block, lambda affine: Plain(affine, watch=True)) for block in weights.blocks]
    FastVisionTower(weights.frame, Plain(weights.patches), blocks)(pixels)
    return [_mapped(block, Plain.seen) for block in blocks]


def bf16_tower(weights: Weights) -> FastVisionTower:
    """The tower with packed bf16 weights."""
    rows, half = weights.frame.rows, torch.bfloat16
    blocks = [_mapped(block, lambda affine: Bf16(affine, rows)) for block in weights.blocks]
    return FastVisionTower(
        weights.frame, Bf16(weights.patches, rows), blocks, stream=half, inner=half
    )


def int8_tower(weights: Weights, seen: Sequence[Block[Span]]) -> FastVisionTower:
    """The tower with 8-bit products, scaled for the values that ``spans`` has seen."""
    rows = weights.frame.rows
    pairs = zip(weights.blocks, seen, strict=True)
    blocks = [_int8_block(block, span, rows) for block, span in pairs]
    patches = Int8(weights.patches, rows, levels=(1 / 255, 128), dtype=torch.float32)
    return FastVisionTower(weights.frame, patches, blocks, raw=True, inner=torch.bfloat16)


def _int8_block(block: Block[Affine], seen: Block[Span], rows: int) -> Block[Layer]:
    """Values leave their product in levels of the next one's input: attention only mixes them."""
    width = len(block.out.weight)
    mixed = balanced(seen.out, block.out.weight, _MARGIN)
    hidden = hidden_grid(seen.down, _MARGIN)

    def normalized(affine: Affine, span: Span, output: tuple[float, int] | None = None) -> Int8:
        grid = balanced(span, affine.weight, _MARGIN)
        return Int8(in_levels(affine, grid), rows, grid=grid, output=output)

    query, keys = block.query, None
    if block.keys is None:
        query = to_levels(query, mixed, slice(2 * width, 3 * width))
    elif seen.keys is not None:
        keys = normalized(to_levels(block.keys, mixed, slice(width, 2 * width)), seen.keys)
    return Block(
        normalized(query, seen.query),
        keys,
        Int8(in_levels(block.out, mixed), rows),
        normalized(block.up, seen.up, hidden),
        Int8(block.down, rows, levels=hidden),
    )
