"""Run a verb's own function with a tiny scorer, without the studio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from guided.core.run import Result, Step
from guided.tasks.base import TaskContext


def perform(module: Any, scorer: Path | None, /, **keys: Any) -> tuple[Result, list[Step[Any]]]:
    """The result and the Steps of a verb given its keys."""
    kit = {} if scorer is None else {"scorer": f"local-dir:{scorer}"}
    steps = module.run(module.Options(**keys), TaskContext(device_name="cpu", kit=kit))
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen


def paint(folder: Path, count: int, size: int = 40) -> list[Path]:
    """PNG files that differ from each other in colour and stripes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(count):
        image = Image.new("RGB", (size, size), (37 * i % 256, 91 * i % 256, 53 * i % 256))
        for x in range(i % 7, size, 3 + i % 5):
            image.paste((200 - 20 * (i % 9), 40, 10 * (i % 20)), (x, 0, x + 1, size))
        files.append(folder / f"{i:03d}.png")
        image.save(files[-1])
    return files
