"""The verbs, one a file; their names and helps are known without importing them."""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from pathlib import Path


@cache
def task_names() -> tuple[str, ...]:
    """The verbs there are: the files of this folder, but for ``base``."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if name != "base" and not name.startswith("_")))


def task_help(name: str) -> str:
    """The first line of a verb's docstring, read from its file; empty for an unknown verb."""
    for folder in __path__:
        path = Path(folder, f"{name}.py")
        if path.is_file():
            head = re.match(r'\s*[rR]?"""(.+?)(?:\n|""")', path.read_text(encoding="utf-8"))
            return head[1].strip() if head else ""
    return ""
