"""Trackers: the figures of a training in TensorBoard, one run over an interruption."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from accelerate import accelerator as accelerate_module
from accelerate import tracking as accelerate_tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType

from guided.errors import CannotDo, RecipeError
from guided.training import tracking
from tests.helpers import tiny_training as tiny


class _Noted(GeneralTracker):
    """Stands for TensorBoard's where that is not installed: notes what it is told."""

    name = "tensorboard"
    requires_logging_directory = True
    told: list[Any]

    def __init__(self, run_name: str, logging_dir: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(_blank=True)
        self.place, self.options = Path(logging_dir) / run_name, options

    def start(self) -> None:
        self.told.append((self.place, self.options))

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.told.append((step, values["loss"]))

    def finish(self) -> None:
        self.told.append("end")


def test_a_tracker_is_told_each_report_once_in_the_folder_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Noted, "told", [], raising=False)
    monkeypatch.setattr(tracking, "expect_tracker", lambda name: None)
    monkeypatch.setattr("guided.training.fit.expect_tracker", lambda name: None)
    monkeypatch.setattr(
        accelerate_tracking, "get_available_trackers", lambda: [LoggerType.TENSORBOARD]
    )
    known = {**accelerate_module.LOGGER_TYPE_TO_CLASS, "tensorboard": _Noted}
    for module in (accelerate_module, accelerate_tracking):
        monkeypatch.setattr(module, "LOGGER_TYPE_TO_CLASS", known)
    tiny.run(tiny.recipe(tmp_path), stop_after=2)  # a tracker may come on the way
    assert _Noted.told == []
    steps, _ = tiny.run(tiny.recipe(tmp_path, tracker="tensorboard"))
    begun, *told, end = _Noted.told
    assert begun == (tmp_path / "tiny" / "tensorboard", {"purge_step": 9})
    assert told == [(step.index, step.losses["loss"]) for step in steps]
    assert end == "end"
    assert (tmp_path / "tiny" / "losses.csv").is_file()


def test_an_absent_tracker_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in tracking.PACKAGES:
        with pytest.raises(CannotDo, match=rf"python -m pip install {name}"):
            tiny.run(tiny.recipe(tmp_path, tracker=name))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="tensorboard"):
        tiny.run(tiny.recipe(tmp_path, tracker="tensorbord"))


def test_tensorboard_shows_one_run_over_an_interruption(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first, _ = tiny.run(tiny.recipe(tmp_path, tracker="tensorboard"), stop_after=3)
    newest = max((tmp_path / "tiny").glob("step-*.ckpt"))
    assert first[-1].index == int(newest.stem[5:])
    newest.unlink()  # as if it had been killed: the last report comes again
    second, _ = tiny.run(tiny.recipe(tmp_path, tracker="tensorboard"))
    found = events.EventAccumulator(str(tmp_path / "tiny" / "tensorboard")).Reload()
    shown = {each.step: each.value for each in found.Scalars("loss")}
    wanted = {step.index: step.losses["loss"] for step in [*first[:-1], *second]}
    assert len(found.Scalars("loss")) == len(wanted)
    assert shown == pytest.approx(wanted)
    assert "monitor_error" in found.Tags()["scalars"]
