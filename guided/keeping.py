"""What is kept of a run: recipe.toml, run.json, steps.jsonl and pictures that remember."""

from __future__ import annotations

import datetime
import json
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from guided.core import lineage
from guided.core.files import STEPS_FILE, inside, make_folder, write_bytes, write_text
from guided.core.run import Picture, Result, Step
from guided.errors import OutputError
from guided.recipe import Recipe
from guided.tasks.base import Workbench

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


def plain(value: Any, place: Mapping[int, Path]) -> Any:
    """The value as plain data: Pictures become their paths, paths and tuples text and lists."""
    if isinstance(value, Picture):
        return str(place[id(value)])
    if isinstance(value, Mapping):
        return {str(key): plain(item, place) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, place) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers
    return value


def _line(step: Step[Any]) -> str:
    losses = {name: float(value) for name, value in step.losses.items()}
    data = {"index": step.index, "total": step.total, "label": step.label, "losses": losses}
    return json.dumps(data, ensure_ascii=False)


@dataclass
class Keeper:
    """Writes a finished run into the bench's folder."""

    recipe: Recipe
    bench: Workbench
    started: float
    taken: set[Path] = field(default_factory=set)

    def keep(self, result: Result, steps: Sequence[Step[Any]]) -> None:
        """Save the run, if there is anything to save; the answer's Pictures become paths.

        Every file is written whole or not at all; run.json comes last, so a folder that has one
        holds a finished run.

        Raises:
            OutputError: a file that cannot be written.
        """
        folder = self.bench.folder
        pictures = result.pictures = result.all_pictures()
        wanted = self.recipe.out is not None or bool(pictures or result.files)
        if folder is None or not (wanted or folder.is_dir()):
            result.answer = plain(result.answer, {})
            return
        make_folder(folder)
        seconds = time.time() - self.started
        places = {id(picture): self.save(picture) for picture in pictures}
        for name, content in result.files.items():
            data = content.encode() if isinstance(content, str) else content
            path = inside(folder, name)
            make_folder(path.parent)
            write_bytes(path, data)
        result.answer = plain(result.answer, places)
        result.folder = folder
        write_text(folder / STEPS_FILE, "".join(f"{_line(step)}\n" for step in steps))
        write_text(folder / RECIPE_FILE, self.text)
        record = self._record(result, seconds, len(steps))
        write_text(folder / RUN_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    @cached_property
    def text(self) -> str:
        """The recipe as TOML, without the folder it went into and the leave to go online."""
        return self.recipe.with_(out=None, online=False).dumps()

    def save(self, picture: Picture) -> Path:
        """Write one picture with the recipe and its whole lineage; returns its path.

        Raises:
            OutputError: the picture cannot be written.
        """
        folder = self.bench.folder
        if folder is None:
            raise OutputError(f"This run has no folder for {picture.name}.")
        path = _free(inside(folder, picture.name), self.taken)
        line = lineage.lineage_of(
            path.name,
            self.text,
            parents=[Path(parent) for parent in picture.parents],
            note=picture.note,
            setting=setting_now(),
        )
        make_folder(path.parent)
        return write_bytes(path, lineage.png_bytes(picture.image, line))

    def _record(self, result: Result, seconds: float, steps: int) -> dict[str, Any]:
        touched = "device" in self.bench.__dict__
        began = datetime.datetime.fromtimestamp(self.started, datetime.UTC)
        return {
            "task": self.recipe.task,
            "started": began.isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "steps": steps,
            "setting": setting_now(),
            "device": self.bench.device.name if touched else None,
            "platform": platform.platform(),
            "weights": plain(self.bench.notes, {}),
            "scores": plain(result.scores, {}),
            "unmet": list(result.unmet),
            "answer": result.answer,
        }


def _free(path: Path, taken: set[Path]) -> Path:
    """The path, or one with a number where this run already wrote a file of that name."""
    number, free = 1, path
    while free in taken:
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    taken.add(free)
    return free
