"""Names to weight files: shipped models, user folders, local caches; cards and kits.

``find`` gives the checked file of a model, ``load_tensors`` and ``load_weights`` its tensors,
``load_kit`` the models of a kit.  Names are imported at their first use, so that
to find a model needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guided.zoo.cards import Card, Metric, read_card, write_card
    from guided.zoo.folders import settle_network, user_folder
    from guided.zoo.kits import ROLES, kit_names, load_kit
    from guided.zoo.packing import load_weights, pack, save_weights, unpack
    from guided.zoo.resolve import ResolvedModel, catalogue, find, names
    from guided.zoo.safe import NvidiaRecord, load_nvidia_pickle, load_tensors

_HOMES = {
    "Card": "cards",
    "ResolvedModel": "resolve",
    "Metric": "cards",
    "NvidiaRecord": "safe",
    "ROLES": "kits",
    "catalogue": "resolve",
    "find": "resolve",
    "kit_names": "kits",
    "load_kit": "kits",
    "load_nvidia_pickle": "safe",
    "load_tensors": "safe",
    "load_weights": "packing",
    "names": "resolve",
    "pack": "packing",
    "read_card": "cards",
    "save_weights": "packing",
    "settle_network": "folders",
    "unpack": "packing",
    "user_folder": "folders",
    "write_card": "cards",
}

__all__ = [
    "ROLES",
    "Card",
    "ResolvedModel",
    "Metric",
    "NvidiaRecord",
    "catalogue",
    "find",
    "kit_names",
    "load_kit",
    "load_nvidia_pickle",
    "load_tensors",
    "load_weights",
    "names",
    "pack",
    "read_card",
    "save_weights",
    "settle_network",
    "unpack",
    "user_folder",
    "write_card",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
