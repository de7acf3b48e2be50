"""Comparisons of our tensors with recorded ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

PICTURE, LATENT, GRADIENT = 1e-4, 1e-5, 1e-3

Load = Callable[[str], dict[str, Tensor]]


def near(ours: Tensor, theirs: Tensor, limit: float) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).detach().abs().max()) <= limit


def near_norm(ours: Tensor, theirs: Tensor, limit: float) -> None:
    assert float((ours - theirs).detach().norm() / theirs.norm()) <= limit


def flat(code: Tensor) -> Tensor:
    """A StyleSpace code [B, 1, C, 1, 1] as [B, C]."""
    return code[:, 0, :, 0, 0]


def numbered(io: dict[str, Tensor], prefix: str) -> list[Tensor]:
    names = sorted(name for name in io if re.fullmatch(rf"{prefix}_\d+", name))
    assert names, prefix
    return [io[name] for name in names]


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under ``prefix``, named without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
