"""Many continuations of a few texts, embedded exactly and cheaply.

A caption search asks for the embeddings of one text continued by hundreds of single tokens, again
and again.  In a causal text tower all of them share the keys and values of the text so far, so
only what differs is computed: usually one new token and the end token instead of the whole
context.  Texts are always tokenised whole, since a continuation may merge with the last word;
what is shared is found by comparing ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guided.core.device import Device, Precision
from guided.core.offload import bring
from guided.errors import UsageError
from guided.scorers.clip import ClipScorer
from guided.scorers.prefix_store import NodeStore
from guided.scorers.prefix_tokens import Texts, Tokenize
from guided.scorers.prefix_tower import CausalTower, Fresh, advance

#: Tokens computed in one pass: enough to fill matrix products, small enough for the caches.
_PASS = 1024
#: Kept nodes one pass may look at; texts of more prefixes go into several passes.
_LOOK = 96


@dataclass
class Counts:
    """What a scorer was asked for and what it computed, to see where the savings come from."""

    asked: int = 0
    distinct: int = 0
    positions: int = 0


@dataclass(frozen=True)
class _Text:
    """New tokens after kept nodes; ``path`` are the nodes of the tokens before."""

    path: tuple[int, ...]
    new: tuple[int, ...]


class PrefixTextScorer:
    """Embeds continuations with a CLIP's text tower; equal to the plain tower up to rounding.

    ``model`` is an open_clip ``CLIP`` or ``CustomTextCLIP``, ``tokenize`` its tokenizer (texts to
    ids [N, context]).  In fp32 embeddings differ from the plain tower's by less than 5e-7; with
    ``precision="bf16"`` they are ``exact = False``: about 2e-3 apart, enough to change captions.
    Towers that are not causal are run whole, with duplicates merged.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenize: Tokenize,
        device: Device | None = None,
        *,
        precision: Precision = "fp32",
        nodes: int = 4096,
    ) -> None:
        self.device = device or Device()
        self.model = model
        self.counts = Counts()
        bring(model)  # the store takes its place, and a copy in bf16 its own
        tower = CausalTower.of(model)
        if tower is None and precision == "bf16":
            raise UsageError(
                "This CLIP's text tower is not causal, so bf16 continuations are not offered.",
                hint="Use precision fp32.",
            )
        self.exact = precision == "fp32"
        self.tower = tower if tower is None or self.exact else tower.to(torch.bfloat16)
        self.texts = Texts(tokenize, self.tower)
        self._store = None if self.tower is None else NodeStore(self.tower, nodes)

    @classmethod
    def of(cls, scorer: ClipScorer, *, precision: Precision = "fp32") -> PrefixTextScorer:
        """The text half of a CLIP scorer, on its device."""
        return cls(scorer.model, scorer.texts.tokenizer, scorer.device, precision=precision)

    def forget(self) -> None:
        """Drop all kept keys and values, so that results cannot depend on earlier calls."""
        if self._store is not None:
            self._store.clear()

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width] of texts, float32."""
        return self.embed_endings([""], [list(texts)])[0]

    @torch.no_grad()
    def embed_endings(
        self, prefixes: Sequence[str], endings: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        """Unit vectors of ``prefixes[i] + endings[i][j]``: for each prefix a tensor [n_i, width].

        Equal id sequences are computed once, whatever their text and prefix.

        Raises:
            UsageError: not one list of endings for each prefix.
        """
        if len(prefixes) != len(endings):
            raise UsageError(
                f"{len(prefixes)} prefixes need as many lists of endings, not {len(endings)}."
            )
        rows = self.texts.rows(prefixes, endings)
        distinct = {ids: place for place, ids in enumerate(dict.fromkeys(chain(*rows)))}
        bring(self.model)
        self.counts.asked += sum(map(len, rows))
        self.counts.distinct += len(distinct)
        if not distinct:
            return [self._nothing() for _ in prefixes]
        if self.tower is None:
            found = self._whole(list(distinct))
        else:
            found = self._shared(list(distinct), self._owners(prefixes, rows))
        return [found[[distinct[ids] for ids in row]] if row else found[:0] for row in rows]

    def _nothing(self) -> Tensor:
        width = self.embed_texts(["a"]).shape[1]
        return torch.zeros(0, width, device=self.device.torch)

    def _whole(self, distinct: list[tuple[int, ...]]) -> Tensor:
        """The plain tower on padded ids, in passes."""
        ids = torch.tensor(distinct, device=self.device.torch)
        self.counts.positions += ids.numel()
        model: Any = self.model
        starts = range(0, len(ids), 256)
        parts = [model.encode_text(ids[start : start + 256]) for start in starts]
        return functional.normalize(torch.cat(parts).float(), dim=-1)

    def _owners(
        self, prefixes: Sequence[str], rows: list[list[tuple[int, ...]]]
    ) -> dict[tuple[int, ...], tuple[int, ...]]:
        """For each id sequence the ids of a prefix it continues."""
        owners: dict[tuple[int, ...], tuple[int, ...]] = {}
        for prefix, row in zip(prefixes, rows, strict=True):
            start = self.texts.prefix(prefix)
            for ids in row:
                owners.setdefault(ids, start)
        return owners

    def _shared(
        self,
        distinct: list[tuple[int, ...]],
        owners: dict[tuple[int, ...], tuple[int, ...]],
    ) -> Tensor:
        """Only the tokens after what each text shares with its prefix."""
        assert self.tower is not None
        assert self._store is not None
        starts = list(dict.fromkeys(owners[ids] for ids in distinct))
        paths = self._keep(starts)
        work: list[_Text] = []
        for ids in distinct:
            start = owners[ids]
            shared = _shared_length(ids, start)
            work.append(_Text(paths[start][:shared], ids[shared:]))
        order = sorted(range(len(work)), key=lambda place: work[place].path)
        parts: list[Tensor] = []
        for places in self._passes(work, order):
            states, _ = self._run([work[place] for place in places])
            parts.append(self.tower.project(states).float())
        found = torch.empty(len(work), parts[0].shape[1], device=parts[0].device)
        found[torch.tensor(order, device=found.device)] = torch.cat(parts)
        return found

    def _keep(self, starts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
        """The nodes of each prefix's tokens, computing those that are not kept yet."""
        assert self._store is not None
        self._store.make_room(sum(map(len, starts)))
        known = {start: self._store.walk(start) for start in starts}
        missing = [start for start in starts if len(known[start]) < len(start)]
        work = [_Text(known[start], start[len(known[start]) :]) for start in missing]
        for places in self._passes(work, list(range(len(work)))):
            texts = [work[place] for place in places]
            _, made = self._run(texts)
            row = 0
            for text in texts:
                self._store.add(text.path, text.new, made, row)
                row += len(text.new)
        return {start: self._store.walk(start) for start in starts}

    def _passes(self, work: list[_Text], order: list[int]) -> list[list[int]]:
        """Texts split into passes of limited size and limited distinct kept nodes."""
        passes: list[list[int]] = []
        tokens, nodes = 0, set[int]()
        for place in order:
            text = work[place]
            wider = nodes | set(text.path)
            full = tokens + len(text.new) > _PASS or len(wider) > max(_LOOK, len(text.path))
            if not passes or full:
                passes.append([])
                tokens, wider = 0, set(text.path)
            passes[-1].append(place)
            tokens, nodes = tokens + len(text.new), wider
        return passes

    def _run(self, texts: Sequence[_Text]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden states of the texts' last tokens, and all new keys and values."""
        assert self.tower is not None
        assert self._store is not None
        where = self.device.torch
        nodes = sorted({node for text in texts for node in text.path})
        column = {node: number for number, node in enumerate(nodes)}
        paths = {path: number for number, path in enumerate(dict.fromkeys(t.path for t in texts))}
        sees = torch.zeros(len(paths), len(nodes), dtype=torch.bool)
        for path, number in paths.items():
            sees[number, [column[node] for node in path]] = True
        ids: list[int] = []
        places: list[int] = []
        order: list[int] = []
        kinds: list[int] = []
        ends: list[int] = []
        for text in texts:
            count, start = len(text.new), len(text.path)
            ids.extend(text.new)
            places.extend(range(start, start + count))
            order.extend(range(count))
            kinds.extend([paths[text.path]] * count)
            ends.append(len(ids) - 1)
        self.counts.positions += len(ids)
        fresh = Fresh(
            ids=torch.tensor(ids, device=where),
            places=torch.tensor(places, device=where),
            order=torch.tensor(order, device=where),
            sees=sees.to(where)[torch.tensor(kinds, device=where)],
            wanted=torch.tensor(ends, device=where),
        )
        return advance(self.tower, fresh, self._store.take(nodes))


def _shared_length(ids: tuple[int, ...], start: tuple[int, ...]) -> int:
    """How many leading ids agree, leaving at least one to compute."""
    limit = min(len(ids) - 1, len(start))
    if ids[:limit] == start[:limit]:
        return limit
    return next(place for place in range(limit) if ids[place] != start[place])
