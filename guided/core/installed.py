"""What installed packages add to this one: their entry points, read once for each Python path."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path


def points_of(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, of all packages that can be imported now.

    The metadata of all packages are read anew only where the Python path, or a folder on it, is
    another than it was: that reading takes as long as a small model's loading.
    """
    return _read(group, tuple((place, _changed(place)) for place in sys.path))


def _changed(place: str) -> int:
    """When the list of a folder's files changed last; 0 where there is no such folder."""
    try:
        return (Path(place) if place else Path.cwd()).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _read(group: str, _: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))
