"""What an inversion keeps of a portrait: its visible attributes, its pixels, its person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from guided.core.protocols import Latent
from guided.judging.retrieval import rate
from guided.worlds.portraits import KEYS, sample
from guided.worlds.portraits.judging.clip_figures import Figure
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.training.degradation import to_float
from guided.worlds.portraits.training.person_pairs import drawn
from guided.worlds.portraits.training.world_data import codes_of

#: Portraits in one pass.
ROWS = 32

Redraw = Callable[[Tensor], Tensor]


def redrawer(generator: Any, inverter: Any) -> Redraw:
    """Pictures [B, 3, H, W] in [0, 1] to what the generator makes of their inverted codes."""

    def redraw(images: Tensor) -> Tensor:
        code: Latent = inverter.invert(images)
        shown: Tensor = generator.render(code)
        return shown

    return redraw


@torch.no_grad()
def inversion_figures(
    redraw: Redraw,
    middle: Tensor,
    reader: Reader,
    identity: Any,
    split: Split,
    count: int = 500,
    size: int = 128,
) -> dict[str, Figure]:
    """Figures of the portraits 0 ... ``count`` of a split and what ``redraw`` makes of them.

    ``kept`` is the share of visible attributes that the reader names in the redrawn picture as the
    world has them, ``kept_KEY`` the same for one attribute; ``l1`` the mean absolute difference;
    ``identity`` the mean cosine of the embedder ``identity``.  Floors are those of ``middle``
    [3, H, W], the mean portrait, for every picture; the ceiling of ``kept`` is what the reader
    names in the true picture.
    """
    people = [sample(seed, split) for seed in range(count)]
    codes = torch.tensor([codes_of(person) for person in people])
    visible = torch.tensor([[person.visible()[key] for key in KEYS] for person in people])
    right: dict[str, list[Tensor]] = {"shown": [], "middle": [], "truth": []}
    apart: dict[str, list[Tensor]] = {"shown": [], "middle": []}
    alike: dict[str, list[Tensor]] = {"shown": [], "middle": []}
    for first in range(0, count, ROWS):
        truth = to_float(drawn(people[first : first + ROWS], size))
        wanted = codes[first : first + ROWS]
        shown = redraw(truth).clamp(0, 1).cpu()
        pictures = {"shown": shown, "middle": middle[None].expand_as(shown), "truth": truth}
        known = identity.embed_images(truth).cpu()
        for name, images in pictures.items():
            right[name].append(_named(reader, images) == wanted)
            if name in apart:
                apart[name].append((images - truth).abs().mean((1, 2, 3)))
                alike[name].append((identity.embed_images(images).cpu() * known).sum(1))
    hits = {name: torch.cat(parts) for name, parts in right.items()}
    found = {"kept": _share(hits, visible)}
    for column, key in enumerate(KEYS):
        only = torch.zeros_like(visible)
        only[:, column] = visible[:, column]
        found[f"kept_{key}"] = _share(hits, only)
    for name, parts, best in (("l1", apart, 0.0), ("identity", alike, 1.0)):
        values = {side: torch.cat(part) for side, part in parts.items()}
        floor = float(values["middle"].mean())
        found[name] = Figure(rate(values["shown"]), floor, best)
    return found


def _named(reader: Reader, images: Tensor) -> Tensor:
    """The position [B, 13] of the likeliest value of each attribute."""
    rows = [
        [
            max(range(len(p)), key=list(p.values()).__getitem__)
            for p in reading.probabilities.values()
        ]
        for reading in reader.read(images)
    ]
    return torch.tensor(rows)


def _share(hits: dict[str, Tensor], where: Tensor) -> Figure:
    """The share of hits among the entries asked for, with floor and ceiling."""
    return Figure(
        rate(hits["shown"][where].float()),
        float(hits["middle"][where].float().mean()),
        float(hits["truth"][where].float().mean()),
    )
