"""Experiment trackers of a training, TensorBoard and Weights & Biases, through accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from guided.core.files import make_folder
from guided.errors import CannotDo

#: The package of each tracker that accelerate knows and that can keep its files in a folder.
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def expect_tracker(name: str) -> None:
    """See to it that a tracker's package is there before anything is trained.

    Raises:
        CannotDo: it is not installed.
    """
    if name and importlib.util.find_spec(PACKAGES[name]) is None:
        raise CannotDo(
            f"The recipe asks for tracker = {name!r}, whose package is not installed.",
            hint=f"Install it with: python -m pip install {PACKAGES[name]}; or leave tracker out: "
            "losses.csv and curve.png are written anyhow.",
        )


@contextmanager
def tracked(accelerator: Accelerator, name: str, folder: Path, step: int) -> Iterator[None]:
    """Within, ``accelerator.log`` reaches the tracker; its files are in ``folder / name``.

    A training that goes on after ``step`` goes on in the same run of the tracker.  Weights & Biases
    stays offline: ``wandb sync`` sends its files.
    """
    if not name:
        yield
        return
    options: Mapping[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": step + 1},  # what came after the checkpoint comes again
        "wandb": {
            "mode": "offline",
            "dir": str(make_folder(folder)),
            "name": folder.name,
            "id": _wandb_id(folder),
            "resume": "allow",
            "settings": {"console": "off"},
        },
    }
    project = "guided" if name == "wandb" else name  # TensorBoard's is the folder's name
    accelerator.init_trackers(project, init_kwargs={name: options[name]})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()


def _wandb_id(folder: Path) -> str | None:
    """The run that an earlier part of this training went into."""
    earlier = max((folder / "wandb").glob("offline-run-*"), default=None)
    return earlier.name.rpartition("-")[2] if earlier else None
