"""Checkpoints that survive a kill at any moment: two generations, checked by a hash when read."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from guided.core.files import make_folder, replacing
from guided.errors import CorruptWeights, GuidedError
from guided.zoo.structure import check_torch_bytes

log = logging.getLogger(__name__)

_MAGIC = b"guided checkpoint 1\n"
_NAME = re.compile(r"step-(\d{9})\.ckpt")
KEEP = 2


def write(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Save a state as the newest generation and return its file; older ones than two go.

    The file appears complete or not at all.

    Raises:
        OutputError: the folder cannot be written (full, read-only); earlier generations stay.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    target = make_folder(folder) / f"step-{step:09d}.ckpt"
    with replacing(target) as file:
        file.write(_MAGIC + hashlib.sha256(payload).digest())
        file.write(payload)
    _forget(folder)
    return target


def read_newest(folder: Path) -> dict[str, Any] | None:
    """The newest state that is whole, or None in a folder without checkpoints.

    A damaged file is named in the log and the generation before it is taken.

    Raises:
        CorruptWeights: there are checkpoints and all of them are damaged.
    """
    files = generations(folder)
    for file in files:
        try:
            state = read(file)
        except CorruptWeights as error:
            log.warning("%s Going back to the checkpoint before it.", error)
            continue
        return state
    if files:
        raise CorruptWeights(
            f"All {len(files)} checkpoints in {folder} are damaged.",
            hint="Delete the folder to begin anew, or start from shipped weights.",
        )
    return None


def read(file: Path) -> dict[str, Any]:
    """The state in one file.

    Raises:
        CorruptWeights: not a checkpoint, cut short or changed.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CorruptWeights(f"The checkpoint {file} cannot be read: {error}.") from error
    head = len(_MAGIC)
    digest, payload = content[head : head + 32], memoryview(content)[head + 32 :]
    if content[:head] != _MAGIC or hashlib.sha256(payload).digest() != digest:
        raise CorruptWeights(f"The checkpoint {file} is damaged.")
    try:
        check_torch_bytes(payload)
        state: dict[str, Any] = torch.load(
            io.BytesIO(payload), map_location="cpu", weights_only=True
        )
    except (GuidedError, UnpicklingError) as error:
        raise CorruptWeights(f"The checkpoint {file} is damaged: not tensors alone.") from error
    return state


def generations(folder: Path) -> list[Path]:
    """The checkpoint files of a folder, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((f for f in folder.iterdir() if _NAME.fullmatch(f.name)), reverse=True)


def clear(folder: Path) -> None:
    """Delete every checkpoint of a folder."""
    for file in generations(folder):
        file.unlink(missing_ok=True)


def _forget(folder: Path) -> None:
    for file in generations(folder)[KEEP:]:
        file.unlink(missing_ok=True)
    for file in folder.glob(".*.part"):  # left by a process that was killed while writing
        file.unlink(missing_ok=True)
