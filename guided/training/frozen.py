"""Finished models that a training leans on: named in its settings, loaded once, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from guided.core.device import Device, Precision, quickest
from guided.errors import MissingWeights
from guided.generators.stylegan2 import StyleGan2, load_stylegan2
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.identity import load_identity
from guided.zoo import find

_FILES = (".pt", ".pth", ".pkl", ".safetensors")


def weight_file(wanted: str, role: str) -> Path:
    """The weight file of a model given by its name in the zoo or by its path.

    Raises:
        MissingWeights: no such file, or no model of that name on this computer.
        CannotDo: a model made for another role.
    """
    path = Path(wanted).expanduser()
    if path.suffix not in _FILES:
        return find(wanted, role).path
    if not path.is_file():
        raise MissingWeights(f"There is no {role} file {path}.", hint="Check the path.")
    return path


def placed(device: torch.device, precision: Precision) -> Device:
    """That device as models are put on it; in fp32 where bf16 would be slower."""
    return Device.pick(str(device), quickest(device, precision))


def frozen_generator(wanted: str, device: Device) -> StyleGan2:
    """The generator of that name or file."""
    return load_stylegan2(weight_file(wanted, "generator"), device)


def frozen_scorer(wanted: str, device: Device) -> ClipScorer:
    """The guiding CLIP of that name or bundle (``local-dir:FOLDER``); never a judge."""
    return load_clip(wanted, device)


def frozen_identity(wanted: str, device: Device) -> Any:
    """The identity embedder of that name or file."""
    return load_identity(weight_file(wanted, "identity"), device)
