"""Kept keys and values of text prefixes, as a tree whose branches share what they share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guided.scorers.prefix_tower import CausalTower


class NodeStore:
    """A tree of tokens; each node holds its keys and values [layers, heads, d] of its layers.

    Nodes are numbers from 0; a text prefix is the path of its tokens.  At most ``capacity`` nodes
    are kept: when more are needed the tree is emptied and what is in use is computed again.
    """

    def __init__(self, tower: CausalTower, capacity: int) -> None:
        self._tower = tower
        self._capacity = capacity
        self._children: dict[tuple[int, int], int] = {}
        self._count = 0
        self._data = self._space(64)

    def _space(self, rows: int) -> Tensor:
        tower = self._tower
        size = tower.width // tower.heads
        return torch.empty(
            len(tower.blocks), 2, rows, tower.heads, size,
            dtype=tower.dtype, device=tower.places.device,
        )  # fmt: skip

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Forget every node."""
        self._children.clear()
        self._count = 0

    def make_room(self, needed: int) -> None:
        """Empty the tree if ``needed`` more nodes might not fit."""
        if self._count + needed > self._capacity:
            self.clear()

    def walk(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The nodes of the longest leading part of ids that is kept."""
        path: list[int] = []
        node = -1
        for token in ids:
            found = self._children.get((node, token))
            if found is None:
                break
            path.append(found)
            node = found
        return tuple(path)

    def add(
        self,
        path: tuple[int, ...],
        new: Sequence[int],
        made: Sequence[tuple[Tensor, Tensor]],
        row: int,
    ) -> None:
        """Keep tokens that follow a path; their keys and values are ``made[layer][...][row:]``."""
        node = path[-1] if path else -1
        for number, token in enumerate(new):
            found = self._children.get((node, token))
            if found is None:
                found = self._append(made, row + number)
                self._children[node, token] = found
            node = found

    def _append(self, made: Sequence[tuple[Tensor, Tensor]], row: int) -> int:
        if self._count == self._data.shape[2]:
            wider = self._space(2 * self._count)
            wider[:, :, : self._count] = self._data
            self._data = wider
        for layer, (key, value) in enumerate(made):
            self._data[layer, 0, self._count] = key[row]
            self._data[layer, 1, self._count] = value[row]
        self._count += 1
        return self._count - 1

    def take(self, nodes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values [len(nodes), heads, d] of these nodes."""
        chosen = self._data[:, :, torch.tensor(nodes, dtype=torch.long, device=self._data.device)]
        return [(layer[0], layer[1]) for layer in chosen]
