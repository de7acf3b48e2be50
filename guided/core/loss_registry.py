"""Losses by name: files of guided/losses, entry points ``guided.losses``, classes of a user."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from guided.core.plugins import Registry, class_name

LOSSES = Registry(
    "loss", "guided.losses", "guided.core.objective:Loss", group="guided.losses", key="loss"
)

#: What losses were called in 0.1: understood with a notice.
ALIASES = {"turned": "clip_delta"}


@dataclass(frozen=True)
class Declared:
    """What a loss says of itself."""

    modality: str = "image"
    needs: tuple[str, ...] = ()


def declared(kind: str) -> Declared:
    """What a loss says of itself; a file of this package is read and not imported."""
    if kind in LOSSES.files():
        return Declared(**_read(LOSSES.file(kind), class_name(kind)))
    loss = LOSSES.load(kind)
    return Declared(loss.modality, loss.needs)


@cache
def _read(path: Path, name: str) -> Mapping[str, Any]:
    """The class variables ``modality`` and ``needs`` in a file, read without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    marks = [n for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    return {
        n.target.id: ast.literal_eval(n.value)
        for n in marks
        if n.value is not None
        and isinstance(n.target, ast.Name)
        and n.target.id in ("modality", "needs")
    }
