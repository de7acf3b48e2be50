"""Train a recipe from a script: changed keys, progress lines, the files it leaves."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from guided.core.files import inside, make_folder, write_bytes
from guided.core.toml import overridden

#: What is not part of a model: it stays in the training's own folder.
RECORDS = ("losses.csv", "curve.png")
#: Seconds between two progress lines.
EVERY = 10.0


def read_recipe(file: Path, changes: Iterable[str]) -> dict[str, Any]:
    """A recipe file as a table, with ``key=value`` changes."""
    return overridden(tomllib.loads(file.read_text("utf-8")), changes)


def train(recipe: Mapping[str, Any], report: Callable[[str], None]) -> Any:
    """The Result of a training; reports a line every ten seconds and what the monitor measures."""
    from guided.training.fit import fit

    steps, reported = fit(recipe), 0.0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        monitored = any("monitor" in name for name in step.losses)
        if monitored or time.monotonic() - reported > EVERY:
            reported = time.monotonic()
            figures = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
            report(f"{step.label} {step.index}/{step.total}  {figures}")


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a folder, each whole or not at all."""
    make_folder(folder)
    for name, content in files.items():
        target = inside(folder, name)
        make_folder(target.parent)
        write_bytes(target, content)
