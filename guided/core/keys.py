"""Keys of options: what a command line calls them, and how they are explained."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def argument(help: str, default: Any = ..., **rules: Any) -> Any:
    """A key that the command line takes by position (a list takes all remaining words)."""
    return Field(default, description=help, json_schema_extra={"cli": "argument"}, **rules)


def option(help: str, default: Any = ..., *, name: str = "", was: str = "", **rules: Any) -> Any:
    """A key that the command line takes as ``--name`` (a list repeats the option).

    ``was`` is what it was called before, understood with a notice.
    """
    extra: Any = {"cli": "option", "name": name, "was": was}
    return Field(default, description=help, json_schema_extra=extra, **rules)


def recipe_only(help: str, default: Any = ..., *, was: str = "", **rules: Any) -> Any:
    """A key that only recipes and ``--set`` can give."""
    return Field(default, description=help, json_schema_extra={"cli": "none", "was": was}, **rules)
