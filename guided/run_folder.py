"""What is kept of a run: recipe.toml, run.json, steps.jsonl and pictures that remember."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from guided.core import lineage
from guided.core.files import (
    STEPS_FILE,
    create_bytes,
    holds,
    inside,
    make_folder,
    numbered,
    write_bytes,
    write_text,
)
from guided.core.finite import check_answer
from guided.core.reading import RECORD, read_json
from guided.core.run import OutputImage, Result, Step
from guided.core.text import encodable, json_text
from guided.errors import OutputError
from guided.recipe import Recipe
from guided.signing import sign
from guided.tasks.base import TaskContext

RECIPE_FILE = "recipe.toml"
RUN_FILE = "run.json"
_PACKAGES = {
    "torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "PIL": "pillow",
    "open_clip": "open_clip_torch", "transformers": "transformers", "diffusers": "diffusers",
    "lpips": "lpips", "safetensors": "safetensors",
}  # fmt: skip


def setting_now() -> dict[str, Any]:
    """What pixels may depend on beside the recipe: versions of what is loaded, and threads.

    ``threads`` is None as long as torch is not loaded.
    """
    from guided import __version__

    versions = {"guided": __version__, "python": platform.python_version()}
    for module, package in _PACKAGES.items():
        if module in sys.modules:
            versions[package] = str(getattr(sys.modules[module], "__version__", "unknown"))
    torch = sys.modules.get("torch")
    return {"threads": torch.get_num_threads() if torch else None, "versions": versions}


def plain(value: Any, place: Mapping[int, Path], renamed: Mapping[str, str] | None = None) -> Any:
    """The value as plain data: Pictures become their paths, paths and tuples text and lists.

    ``renamed`` gives the paths that files got whose first name was another file's.
    """
    if isinstance(value, OutputImage):
        return str(value.path or place[id(value)])
    if isinstance(value, Mapping):
        return {str(key): plain(item, place, renamed) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, place, renamed) for item in value]
    if isinstance(value, (str, Path)):
        return (renamed or {}).get(str(value), str(value))
    return value


def _line(step: Step[Any]) -> str:
    """A Step as a line of JSON, without losses that are not finite: JSON has no such numbers."""
    losses = {name: float(value) for name, value in step.losses.items()}
    losses = {name: value for name, value in losses.items() if math.isfinite(value)}
    data = {"index": step.index, "total": step.total, "label": step.label, "losses": losses}
    return json_text(plain(data, {}))


def record_file(folder: Path, name: str, number: int) -> Path:
    """A record's file of the first, second ... run saved into a folder: run.json, run-2.json."""
    path = folder / name
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def numbers_of_runs(folder: Path) -> list[int]:
    """The numbers of the finished runs in a folder (see ``record_file``), rising."""
    pattern = re.compile(r"run(?:-([1-9][0-9]{0,8}))?\.json")
    try:
        found = [pattern.fullmatch(path.name) for path in folder.iterdir()]
    except OSError:
        return []
    numbers = sorted(int(match[1] or 1) for match in found if match)
    return [n for n in numbers if record_file(folder, RECIPE_FILE, n).exists()]


@dataclass
class RunWriter:
    """Writes a run into the ctx's folder, and over nothing that is there.

    A file whose name is taken gets the next free one (``sheet-2.png``), whoever took it: the user,
    another run, another process at the same moment.  Replaced is only what this run goes on with:
    a file that an earlier run of the same recipe wrote and nobody changed since, a journal that
    the verb has checked (``ctx.own``), a text whose new lines follow the old ones.  With
    ``force`` every file takes its name.
    """

    recipe: Recipe
    ctx: TaskContext
    started: float
    taken: set[Path] = field(default_factory=set)

    def keep(self, result: Result, steps: Sequence[Step[Any]]) -> None:
        """Save the run, if there is anything to save; the answer's Pictures become paths.

        Every file is written whole or not at all; run.json comes last, so a folder that has one
        holds a finished run.

        Raises:
            OutputError: a file that cannot be written.
            CannotDo: an answer with a number that is not finite, once the pictures are saved.
        """
        pictures = result.pictures = result.output_images()
        wanted = bool(pictures or result.files) or self.ctx.has_folder
        folder = self.ctx.folder if wanted else None
        if folder is None:
            result.answer = plain(result.answer, {})
            check_answer(result.answer)
            return
        make_folder(folder)
        seconds = time.time() - self.started
        places = {id(picture): self.save(picture) for picture in pictures if picture.path is None}
        files = {name: self.save_file(name, content) for name, content in result.files.items()}
        renamed = {
            str(folder / name): str(path)
            for name, path in files.items()
            if path.name != Path(name).name
        }
        result.answer = plain(result.answer, places, renamed)
        check_answer({"scores": result.scores, **result.answer})
        result.folder = folder
        number = self._number(folder)
        lines = "".join(f"{_line(step)}\n" for step in steps)
        write_text(record_file(folder, STEPS_FILE, number), lines)
        record = self._record(result, seconds, len(steps))
        root = folder.resolve()
        own = {path.relative_to(root).as_posix(): _digest(path) for path in files.values()}
        record |= {"files": own, "signature": self.signature}
        write_text(record_file(folder, RUN_FILE, number), json_text(record, indent=2) + "\n")

    @cached_property
    def text(self) -> str:
        """The recipe as TOML, without the folder it went into and leave for this time alone."""
        return self.recipe.with_(out=None, online=False, force=False).dumps()

    @cached_property
    def signature(self) -> str:
        """What this computer knows the recipe by (see ``guided.signing``)."""
        return sign(self.text)

    def save(self, picture: OutputImage) -> Path:
        """Write one picture with the recipe and its whole lineage; returns its path.

        A picture that is there already, byte for byte, is not written again.

        Raises:
            OutputError: the picture cannot be written.
        """
        folder = self.ctx.folder
        if folder is None:
            raise OutputError(f"This run has no folder for {picture.name}.")
        return self._written(folder, picture.name, lambda name: self._png(picture, name))

    def _png(self, picture: OutputImage, name: str) -> bytes:
        line = lineage.lineage_of(
            name,
            self.text,
            parents=[Path(parent) for parent in picture.parents],
            note=picture.note,
            setting={**self._setting(), "weights": plain(self.ctx.notes, {})},
            signature=self.signature,
        )
        return lineage.png_bytes(picture.image, line)

    def save_file(self, name: str, content: str | bytes) -> Path:
        """Write a file that is no picture; returns its path.

        Raises:
            OutputError: the file cannot be written.
        """
        folder = self.ctx.folder
        if folder is None:
            raise OutputError(f"This run has no folder for {name}.")
        data = encodable(content).encode() if isinstance(content, str) else content
        return self._written(folder, name, lambda _: data)

    def _written(self, folder: Path, name: str, content: Callable[[str], bytes]) -> Path:
        """Write ``content(file name)`` under the first name that may be taken; returns its path."""
        for number, variant in enumerate(numbered(Path(name))):
            if (folder / variant).is_symlink():  # it may lead anywhere
                continue
            path = inside(folder, variant.as_posix() if number else name)
            make_folder(path.parent)
            if path in self.taken:
                continue
            data = content(path.name)
            if self.ctx.force or self._may_replace(folder, path, data):
                self.taken.add(path)
                return write_bytes(path, data)
            if create_bytes(path, data) or holds(path, data):
                self.taken.add(path)
                return path
        raise AssertionError("there is always a free number")

    def _may_replace(self, folder: Path, path: Path, data: bytes) -> bool:
        """Whether a file that is there is this run's own, to go on with."""
        name = path.relative_to(folder.resolve()).as_posix()
        if not path.is_file() or path.suffix == ".png":
            return False
        if name in self.ctx.own or self._earlier.get(name) == _digest(path):
            return True
        size = path.stat().st_size
        return 0 < size < len(data) and holds(path, data[:size])

    @cached_property
    def _earlier(self) -> Mapping[str, str]:
        """Digests by name of the files that finished runs of this recipe wrote into the folder."""
        folder, digests = self.ctx.folder, dict[str, str]()
        if folder is None:
            return digests
        for number in numbers_of_runs(folder):
            record = self._of_this_recipe(folder, number)
            files = record.get("files") if record else None
            digests.update(files if isinstance(files, dict) else {})
        return digests

    def _of_this_recipe(self, folder: Path, number: int) -> dict[str, Any] | None:
        """The record of a finished run of the same recipe; None for anything else."""
        if not holds(record_file(folder, RECIPE_FILE, number), self.text.encode()):
            return None
        try:
            record = read_json(record_file(folder, RUN_FILE, number), **RECORD)
        except (OSError, ValueError):
            return None
        is_run = isinstance(record, dict) and record.get("task") == self.recipe.task
        return record if is_run else None

    def _number(self, folder: Path) -> int:
        """The number of this run's record, its recipe written: its own earlier one or a free one.

        Two runs that end at once in one folder get two numbers: the recipe's file is created by
        one of them alone.
        """
        data = self.text.encode()
        for number in itertools.count(1):
            recipe, *others = (
                record_file(folder, name, number) for name in (RECIPE_FILE, STEPS_FILE, RUN_FILE)
            )
            if self.ctx.force:
                write_bytes(recipe, data)
                return number
            free = not any(os.path.lexists(path) for path in others)
            if free and create_bytes(recipe, data):
                return number
            if self._of_this_recipe(folder, number) is not None or (free and holds(recipe, data)):
                return number
        raise AssertionError("there is always a free number")

    def _setting(self) -> dict[str, Any]:
        """``setting_now`` with the dtype of what made images and texts, and whether models took
        turns on the device.
        """
        return {**setting_now(), **self.ctx.models.placement.told}

    def _record(self, result: Result, seconds: float, steps: int) -> dict[str, Any]:
        touched = "device" in self.ctx.__dict__
        began = datetime.datetime.fromtimestamp(self.started, datetime.UTC)
        return {
            "task": self.recipe.task,
            "started": began.isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "steps": steps,
            "setting": self._setting(),
            "device": self.ctx.device.name if touched else None,
            **self.ctx.peak_memory(),
            "platform": platform.platform(),
            "weights": plain(self.ctx.notes, {}),
            "scores": plain(result.scores, {}),
            "failed_expectations": list(result.failed_expectations),
            "answer": result.answer,
        }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
