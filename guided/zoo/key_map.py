"""Names of tensors in files of version 0.1.0, and what our networks call them now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class _Network(NamedTuple):
    """A network's renamed tensors: ``mark`` fits a name that only its old files have."""

    mark: str
    names: tuple[tuple[str, str], ...]


_NETWORKS = (
    # The text GAN's generator.
    _Network(r"listen\.weight", (
        (r"listen\.", "text_proj."), (r"given\.", "frozen_mapping."),
        (r"stencil\.", "mask_overlay."),
    )),
    # The latent scorer.
    _Network(r"blocks\.0\.mixed\.weight", (
        (r"places$", "pos_embed"),
        (r"(blocks\.\d+)\.before\.", r"\1.norm1."), (r"(blocks\.\d+)\.mixed\.", r"\1.qkv."),
        (r"(blocks\.\d+)\.between\.", r"\1.norm2."), (r"(blocks\.\d+)\.inner\.", r"\1.mlp."),
    )),
    # The identity network and the style encoder, which is kept under a prefix.
    _Network(r"(encoder\.)?trunk\.stages\.0\.0\.0\.weight", (
        (r"(encoder\.)?trunk\.stages\.", r"\1backbone.stages."),
        (r"(encoder\.)?glances\.", r"\1heads."),
    )),
)  # fmt: skip


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file by the names of today; those of other networks keep theirs."""
    for network in _NETWORKS:
        if any(re.fullmatch(network.mark, name) for name in tensors):
            return {_renamed(name, network): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _renamed(name: str, network: _Network) -> str:
    for before, after in network.names:
        if found := re.match(before, name):
            return found.expand(after) + name[found.end() :]
    return name
