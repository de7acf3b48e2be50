"""The floors of dependencies are versions that were tried."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Older ones are supported on purpose.
OLDER = {"torch": (2, 11), "torchvision": (0, 26)}


def test_floors_are_versions_that_were_tried() -> None:
    tried = dict(
        line.split("==")
        for line in (ROOT / ".ci" / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for line in asked:
        name, floor = re.match(r"([\w-]+)>=([\d.]+)", line).groups()  # type: ignore[union-attr]
        numbers = tuple(map(int, floor.split(".")))
        same = tuple(map(int, tried[name].split(".")))[: len(numbers)]
        assert numbers == OLDER.get(name, same), line
