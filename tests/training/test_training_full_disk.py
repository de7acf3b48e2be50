"""A disk that is full during a training: told as that, and the checkpoints before it stay."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from guided.core import unfinished
from guided.errors import OutputError
from guided.training import checkpoint
from guided.worlds.portraits.training.world_data import draw_shard


def full(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_checkpoint_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write(tmp_path, 1, {"step": torch.tensor(1)})
    unfinished.note("the training is at step 1 in HERE; the same command goes on")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        checkpoint.write(tmp_path, 2, {"step": torch.tensor(2)})
    unfinished.begin(watched=False)
    assert "step-000000002.ckpt" in caught.value.message
    assert "the training is at step 1 in HERE; the same command goes on" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.ckpt"]
    assert checkpoint.read_newest(tmp_path)["step"] == 1


def test_a_shard_leaves_nothing_half_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        draw_shard(tmp_path, 0, "val", 32, range(2), os.getppid())
    assert list(tmp_path.iterdir()) == []
