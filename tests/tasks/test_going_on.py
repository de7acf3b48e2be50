"""Batches that are interrupted: what is finished stays whole, and the same command goes on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import guided.core.files as files
from guided.core import lineage
from guided.errors import OutputError
from guided.recipe import Recipe
from guided.studio import run
from guided.tasks._ledger import Ledger
from tests.helpers.tiny_clip import bundle  # noqa: F401
from tests.helpers.tiny_text_gan import write_gan

Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path, bundle: Path) -> Start:  # noqa: F811
    """Start a generation of six images, two at a time, in a folder of this name."""
    gan = write_gan(tmp_path / "gan", f"local-dir:{bundle}")

    def call(name: str, **options: Any) -> Any:
        data: dict[str, Any] = {
            "task": "generate", "method": "gan", "gan": str(gan), "device": "cpu", "batch": 2,
            "prompts": ["a red hat", "zzyzx qqq"], "count": 3, "out": str(tmp_path / name),
        }  # fmt: skip
        return run(Recipe.of({**data, **options}, "test"))

    return call


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def relative(answer: dict[str, Any], folder: Path) -> str:
    return json.dumps(answer).replace(str(folder), "FOLDER")


def stopped(started: Any, steps: int) -> None:
    for number, _ in enumerate(started, 1):
        if number == steps:
            started.stop()


@pytest.mark.parametrize("extra", [{}, {"sheet": True, "gif": 2}, {"best": 2}])
def test_a_resumed_run_equals_an_uninterrupted_one(
    start: Start, tmp_path: Path, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start("whole", **extra).result()
    stopped(start("parts", **extra), 2)
    first = images(tmp_path / "parts")
    assert len(first) == 4
    assert not (tmp_path / "parts" / "run.json").exists()
    for path in (tmp_path / "parts").glob("*.png"):
        assert lineage.read(path).picture.recipe  # whole, with its recipe
    made: list[str] = []
    add = Ledger.add

    def counted(self: Ledger, rows: Any, entries: Any, **further: Any) -> Any:
        made.extend(rows)
        return add(self, rows, entries, **further)

    monkeypatch.setattr(Ledger, "add", counted)
    rest = start("parts", **extra).result()
    if not extra.get("gif"):  # an animation is drawn from latents, which are made again
        assert made == ["4", "5"]  # nothing was made twice
    assert images(tmp_path / "parts") == images(tmp_path / "whole")
    assert relative(rest.answer, tmp_path / "parts") == relative(whole.answer, tmp_path / "whole")
    assert rest.scores == whole.scores
    assert [image.tobytes() for image in rest.images] == [i.tobytes() for i in whole.images]


def test_memory_does_not_hold_what_is_saved(start: Start, tmp_path: Path) -> None:
    result = start("out").result()
    assert len(result.pictures) == 6
    assert all(p._image is None and p.path.is_file() for p in result.pictures)
    assert len(result.images) == 6


def test_another_recipe_in_the_folder_is_not_mixed(start: Start, tmp_path: Path) -> None:
    first = start("out").result()
    other = start("out", seed=7).result()
    alone = start("alone", seed=7).result()
    assert relative(other.answer, tmp_path / "out") == relative(alone.answer, tmp_path / "alone")
    again = start("out").result()
    assert again.answer == first.answer
    fresh = start("fresh").result()
    assert [i.tobytes() for i in again.images] == [i.tobytes() for i in fresh.images]


def test_an_image_that_was_changed_or_lost_is_made_again(start: Start, tmp_path: Path) -> None:
    start("out").result()
    before = images(tmp_path / "out")
    lost, changed = sorted(before)[0], sorted(before)[3]
    (tmp_path / "out" / lost).unlink()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "out" / changed)
    result = start("out").result()
    assert images(tmp_path / "out")[lost] == before[lost]
    with Image.open(result.answer["results"][3]["image"]) as image:
        assert image.size == (32, 32)


def test_a_full_disk_says_what_is_saved_and_the_same_command_goes_on(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start("whole").result()
    written: list[int] = []
    fsync = os.fsync

    def full_after_a_while(handle: int) -> None:
        written.append(handle)
        if len(written) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full_after_a_while)
        with pytest.raises(OutputError, match="the disk is full") as caught:
            start("out").result()
    finished = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert f"{len(finished)} of 6 done are in {tmp_path / 'out'}" in caught.value.hint
    assert "the same command goes on" in caught.value.hint
    assert not list((tmp_path / "out").glob(".*.part"))
    rest = start("out").result()
    assert images(tmp_path / "out") == images(tmp_path / "whole")
    assert relative(rest.answer, tmp_path / "out") == relative(whole.answer, tmp_path / "whole")
