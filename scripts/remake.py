"""What build_weights and gpu share: train a recipe with a line now and then, keep its files."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "train"
SHIPPED = ROOT / "guided" / "zoo" / "shipped"
#: What is not part of a model: it stays in the training's own folder.
RECORDS = ("losses.csv", "curve.png")

sys.path.insert(0, str(ROOT))


def recipe_of(file: Path, changes: Iterable[str]) -> dict[str, Any]:
    """A recipe file as a table, with ``key=value`` changes."""
    from guided.core.toml import overridden

    return overridden(tomllib.loads(file.read_text("utf-8")), changes)


def train(recipe: Mapping[str, Any]) -> Any:
    """The Result of a training; prints a report every ten seconds and what the monitor says."""
    from guided.training.fit import fit

    steps, said = fit(recipe), 0.0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        watched = any("monitor" in name for name in step.losses)
        if watched or time.monotonic() - said > 10:
            said = time.monotonic()
            figures = "  ".join(f"{name} {value:.4g}" for name, value in step.losses.items())
            print(f"{step.label} {step.index}/{step.total}  {figures}", flush=True)


def keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a folder, each whole or not at all."""
    from guided.core.files import inside, make_folder, write_bytes

    make_folder(folder)
    for name, content in files.items():
        target = inside(folder, name)
        make_folder(target.parent)
        write_bytes(target, content)
