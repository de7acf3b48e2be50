"""The text tower of a CLIP, run on new tokens alone, with the keys and values of old ones kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class CausalTower:
    """The parts of an open_clip text tower whose tokens only look back.

    ``pool`` names how the text's position is found from its ids: ``argmax`` (the greatest id) or
    ``eos`` (the first ``end`` id).  In such a tower nothing after that position matters.
    """

    tokens: nn.Embedding
    places: Tensor
    blocks: tuple[ResidualAttentionBlock, ...]
    norm: nn.Module
    projection: Any
    pool: str
    end: int

    @classmethod
    def of(cls, model: nn.Module) -> CausalTower | None:
        """The tower of an open_clip ``CLIP`` or ``CustomTextCLIP``; None if it is another kind.

        Other kinds are towers that look ahead, that append a class token, that pool elsewhere than
        at the end token, or that transformers supplies.
        """
        text: Any = getattr(model, "text", model)
        whole = isinstance(text, TextTransformer)
        pool = text.pool_type if whole else getattr(text, "text_pool_type", "")
        transformer = getattr(text, "transformer", None)
        blocks = tuple(getattr(transformer, "resblocks", ()))
        if (
            pool not in ("argmax", "eos")
            or getattr(text, "attn_mask", None) is None
            or getattr(text, "cls_emb", None) is not None
            or not blocks
            or not all(type(block) is ResidualAttentionBlock for block in blocks)
            or any(getattr(block.attn, "in_proj_weight", None) is None for block in blocks)
        ):
            return None
        return cls(
            tokens=text.token_embedding,
            places=text.positional_embedding,
            blocks=blocks,
            norm=text.ln_final,
            projection=text.text_projection,
            pool=pool,
            end=text.eos_id if whole else text.text_eos_id,
        )

    @property
    def heads(self) -> int:
        """The number of attention heads."""
        attention: Any = self.blocks[0].attn
        return int(attention.heads if hasattr(attention, "heads") else attention.num_heads)

    @property
    def width(self) -> int:
        """The number of features of a token."""
        return int(self.tokens.embedding_dim)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the blocks."""
        dtype: torch.dtype = self.blocks[0].get_weight_dtype()
        return dtype

    def to(self, dtype: torch.dtype) -> CausalTower:
        """A copy whose blocks compute in another precision; norm and projection stay."""
        blocks = tuple(copy.deepcopy(block).to(dtype) for block in self.blocks)
        return CausalTower(
            self.tokens, self.places, blocks, self.norm, self.projection, self.pool, self.end
        )

    def ends(self, ids: Tensor) -> Tensor:
        """The position [N] at which texts of ids [N, T] are pooled."""
        marks = ids if self.pool == "argmax" else (ids == self.end).int()
        return marks.argmax(dim=-1)

    def project(self, hidden: Tensor) -> Tensor:
        """Unit embeddings [N, D] of hidden states [N, width] at the end tokens."""
        found = self.norm(hidden.to(self.places.dtype))
        if isinstance(self.projection, nn.Linear):
            found = self.projection(found)
        elif self.projection is not None:
            found = found @ self.projection
        return functional.normalize(found, dim=-1)


@dataclass(frozen=True)
class Fresh:
    """Tokens to compute, flattened over texts: what each is, where it stands, whom it sees.

    ``ids``, ``places`` and ``order`` are [M]: a token's id, its position in its text, and its
    number among its text's new tokens (consecutive, from 0).  ``sees`` [M, K] says which of K kept
    nodes it may look at; besides these it sees the new tokens before it in its own text.
    ``wanted`` [N] are the tokens whose last hidden state is asked for.
    """

    ids: Tensor
    places: Tensor
    order: Tensor
    sees: Tensor
    wanted: Tensor


def advance(
    tower: CausalTower, fresh: Fresh, kept: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Hidden states [N, width] of the wanted tokens, and each layer's new keys and values.

    ``kept`` holds for each layer keys and values [K, heads, width / heads] of earlier tokens; the
    new ones are [M, heads, width / heads].
    """
    states = tower.tokens(fresh.ids) + tower.places[fresh.places]
    states = states.to(tower.dtype)
    hidden_from = torch.zeros(fresh.sees.shape, dtype=states.dtype, device=states.device)
    hidden_from.masked_fill_(~fresh.sees, float("-inf"))
    backs = _lookbacks(fresh.order)
    made: list[tuple[Tensor, Tensor]] = []
    last = len(tower.blocks) - 1
    for layer, block in enumerate(tower.blocks):
        attention = block.attn
        both = functional.linear(
            block.ln_1(states), attention.in_proj_weight, attention.in_proj_bias
        )
        query, key, value = both.view(len(states), 3, tower.heads, -1).unbind(1)
        made.append((key, value))
        if layer == last and len(fresh.wanted) < len(states):
            backs = [_only(pair, fresh.wanted, len(states)) for pair in backs]
            query, states = query[fresh.wanted], states[fresh.wanted]
            hidden_from = hidden_from[fresh.wanted]
        seen = _attend(query, (key, value), kept[layer], hidden_from, backs)
        states = states + block.ls_1(attention.out_proj(seen))
        states = states + block.ls_2(block.mlp(block.ln_2(states)))
    if len(states) != len(fresh.wanted):
        states = states[fresh.wanted]
    return states, made


def _lookbacks(order: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For distance 0, 1, ...: the tokens that have a new token so far back, and that token."""
    deepest = int(order.max()) if len(order) else 0
    rows = [(order >= distance).nonzero().squeeze(1) for distance in range(deepest + 1)]
    return [(row, row - distance) for distance, row in enumerate(rows)]


def _only(pair: tuple[Tensor, Tensor], wanted: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A lookback renumbered to the wanted tokens' places among themselves."""
    rows, sources = pair
    place = torch.full((count,), -1, dtype=torch.long, device=wanted.device)
    place[wanted] = torch.arange(len(wanted), device=wanted.device)
    keep = place[rows] >= 0
    return place[rows[keep]], sources[keep]


def _attend(
    query: Tensor,
    new: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    hidden_from: Tensor,
    backs: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """Attention [M, width] of queries [M, heads, d] over kept nodes and their own new tokens."""
    count, heads, size = query.shape
    nodes = len(kept[0])
    query = query * size**-0.5
    weights = query.new_full((heads, count, nodes + len(backs)), float("-inf"))
    if nodes:
        old = torch.matmul(query.transpose(0, 1), kept[0].permute(1, 2, 0))
        weights[:, :, :nodes] = old + hidden_from
    for distance, (rows, sources) in enumerate(backs):
        own = (query[rows] * new[0][sources]).sum(dim=-1)
        weights[:, rows, nodes + distance] = own.T
    weights = weights.softmax(dim=-1)
    seen = torch.zeros_like(query)
    if nodes:
        seen += torch.matmul(weights[:, :, :nodes], kept[1].transpose(0, 1)).transpose(0, 1)
    for distance, (rows, sources) in enumerate(backs):
        share = weights[:, rows, nodes + distance].T.unsqueeze(-1)
        seen.index_add_(0, rows, share * new[1][sources])
    return seen.reshape(count, heads * size)
