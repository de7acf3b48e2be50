"""Run a tool of the world by its name: what ``scripts/judge`` and ``scripts/build`` call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from guided.errors import GuidedError, nearest

HERE = Path(__file__).parent


def tool_names(folder: str) -> list[str]:
    """The tools of a folder of this package: its public modules."""
    return sorted(file.stem for file in (HERE / folder).glob("[a-z]*.py"))


def run_tool(folder: str, name: str, arguments: Sequence[str]) -> int:
    """The exit status of a module's ``main(arguments)``; errors are one readable message.

    An unknown name is status 2.
    """
    names = tool_names(folder)
    if name not in names:
        there = f"there are: {', '.join(names)}. {nearest(name, names)}".strip()
        print(f"error: there is no {name!r}; {there}", file=sys.stderr)  # noqa: T201
        return 2
    module = import_module(f"guided.worlds.portraits.{folder.replace('/', '.')}.{name}")
    try:
        status: int = module.main(arguments)
    except GuidedError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    return status


def tool_parser(tool: str, about: str | None) -> argparse.ArgumentParser:
    """The command line of a tool, whose docstring is its help."""
    return argparse.ArgumentParser(
        prog=f"scripts/{tool}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
