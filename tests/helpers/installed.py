"""A package of the user's, as an installer leaves it: names of entry points without its files."""

from __future__ import annotations

from pathlib import Path

import pytest


def install(folder: Path, patch: pytest.MonkeyPatch, group: str, **points: str) -> Path:
    """The folder on the Python path in which a package names entry points of a group."""
    info = folder / "site" / "userpackage-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: userpackage\nVersion: 1.0\n")
    lines = [f"{name} = {target}\n" for name, target in points.items()]
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
    patch.syspath_prepend(str(info.parent))
    return info.parent
