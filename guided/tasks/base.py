"""What a verb is: options that are its recipe keys, and a generator of Steps ending in a Result.

A verb ``read`` lives in ``guided/tasks/read.py``, whose docstring's first line is its help and
which holds ``class Options(TaskOptions)`` and ``def run(options, bench)``.  Task modules import
nothing heavy at the top, so that help, listings and recipe errors stay quick.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from guided.core.run import Picture, Result, Step
from guided.errors import CannotDo, MissingWeights

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.device import Device

Steps = Generator[Step[Any], None, Result]


class TaskOptions(BaseModel):
    """The keys of a verb's recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def argument(help: str, default: Any = ..., **rules: Any) -> Any:
    """A key that the command line takes by position (a list takes all remaining words)."""
    return Field(default, description=help, json_schema_extra={"cli": "argument"}, **rules)


def option(help: str, default: Any = ..., *, name: str = "", **rules: Any) -> Any:
    """A key that the command line takes as ``--name`` (a list repeats the option)."""
    return Field(
        default, description=help, json_schema_extra={"cli": "option", "name": name}, **rules
    )


def recipe_only(help: str, default: Any = ..., **rules: Any) -> Any:
    """A key that only recipes and ``--set`` can give."""
    return Field(default, description=help, json_schema_extra={"cli": "none"}, **rules)


@dataclass
class Workbench:
    """What the studio hands to a verb besides its options.

    ``kit`` maps roles (``scorer``, ``reader``, ``generator``, ...) to model names; ``folder`` is
    where the run will be saved (None when it is not saved); ``notes`` collects what run.json keeps
    of the models that were loaded (name -> sha256); ``given`` holds pictures that were handed over
    in memory, by the name that stands for them in the options; ``keep`` writes a picture.
    """

    seed: int = 0
    device_name: str | None = None
    kit: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    online: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    given: Mapping[str, Image.Image] = field(default_factory=dict)
    keep: Callable[[Picture], Path] | None = None

    def save(self, picture: Picture) -> Path:
        """Save a picture in ``folder`` at once, with its recipe and lineage; returns its path.

        For verbs that make more pictures than memory holds; others put them into their Result.

        Raises:
            CannotDo: this run is not saved.
            OutputError: the picture cannot be written.
        """
        if self.keep is None:
            raise CannotDo(f"This run is not saved, so {picture.name} has no place.")
        return self.keep(picture)

    def named(self, role: str) -> str:
        """The kit's model of a role.

        Raises:
            MissingWeights: the kit names none.
        """
        if not self.kit.get(role):
            raise MissingWeights(
                f"The kit names no {role}.", hint="Take one that does: --kit portraits"
            )
        return self.kit[role]

    def open_image(self, file: str | Path) -> Image.Image:
        """The RGB picture of a file, or one that was given in memory under that name.

        Raises:
            ImageError: a file that does not give a picture.
        """
        from guided.core.images import open_image

        held = self.given.get(str(file))
        return held.convert("RGB") if held is not None else open_image(file)

    @cached_property
    def device(self) -> Device:
        """The device of this run; the first touch imports torch."""
        from guided.core.device import Device

        return Device.pick(self.device_name)
