"""What a verb is: options that are its recipe keys, and a generator of Steps ending in a Result.

A verb ``score`` lives in ``guided/tasks/score.py`` (those of a world in ``guided/worlds/*/tasks``),
whose docstring's first line is its help and which holds ``class Options(TaskOptions)`` and ``def
run(options, ctx)``.  ``def check(options, ctx)`` may refuse options before models are looked
for, ``def needs(options)`` names the roles of these.  Task modules import nothing heavy at the top,
so that help, listings and recipe errors stay quick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from guided.core.keys import argument, option, recipe_only
from guided.core.run import OutputImage, Result, Step
from guided.core.seeds import SEEDS, seed_at
from guided.core.world import NO_WORLD, World, load_world
from guided.errors import CannotDo, MissingWeights

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.device import Device
    from guided.core.precision import DtypeName
    from guided.models import Models

__all__ = ["RunFolder", "Steps", "TaskOptions", "TaskContext", "argument", "option", "recipe_only"]

logger = logging.getLogger(__name__)

Steps = Generator[Step[Any], None, Result]


class TaskOptions(BaseModel):
    """The keys of a verb's recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def expanded(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """A recipe's plain data with what it only names put in its place; here: as it is.

        Called before ``--set`` and before validation; a second call changes nothing.
        """
        return data


def changed(options: BaseModel, keys: Iterable[str]) -> list[str]:
    """Those of the keys that do not have their default."""
    fields = type(options).model_fields
    return [
        key
        for key in keys
        if getattr(options, key) != fields[key].get_default(call_default_factory=True)
    ]


def warn_idle(options: BaseModel, keys: Iterable[str], reason: str) -> None:
    """Name in the log those of the keys that were given though they do nothing for a ``reason``."""
    if idle := changed(options, keys):
        named = ", ".join(f"--{key.replace('_', '-')}" for key in idle)
        logger.warning("%s: not used, as %s.", named, reason)


class RunFolder:
    """The folder of a run: a path, None, or a way to make one, which the first look takes.

    So a run that saves nothing makes no folder, and one that does has it from its first file on.
    """

    def __get__(self, ctx: TaskContext | None, owner: type) -> Path | None:
        if ctx is None:
            return None
        held: Path | Callable[[], Path] | None = ctx.__dict__.get("_folder")
        if callable(held):
            held = ctx.__dict__["_folder"] = held()
        return held

    def __set__(self, ctx: TaskContext, value: Path | Callable[[], Path] | None) -> None:
        ctx.__dict__["_folder"] = value


@dataclass
class TaskContext:
    """What the studio hands to a verb besides its options.

    ``dtype`` and ``offload`` are None for "auto" and "none".  ``kit`` maps roles (``scorer``,
    ``reader``, ``generator``, ...) to model names, ``world_name`` says what world its
    images are of ("" for none); ``folder`` is where the run will be saved (None when it is not
    saved), made when a verb first asks for it;
    ``notes`` collects what run.json keeps of the models that were loaded (name -> sha256);
    ``given`` holds pictures that were handed over in memory, by the name that stands for them in
    the options, ``objects`` models that were; ``keep`` writes a picture and ``store`` a file of
    bytes at once.  ``own`` are names of files in the folder that this run goes on with (a journal
    it has checked), so that they may be replaced; other files that are there are left alone unless
    ``force``.  ``recipe`` is the run's as plain data, ``out_given`` whether it names the folder.
    """

    seed: int = 0
    device_name: str | None = None
    dtype: DtypeName | None = None
    offload: str | None = None
    kit: Mapping[str, str] = field(default_factory=dict)
    world_name: str = ""
    folder: RunFolder = RunFolder()
    online: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    given: Mapping[str, Image.Image] = field(default_factory=dict)
    objects: Mapping[str, Any] = field(default_factory=dict)
    keep: Callable[[OutputImage], Path] | None = None
    store: Callable[[str, bytes], Path] | None = None
    own: set[str] = field(default_factory=set)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    out_given: bool = False
    force: bool = False
    _wrapped: bool = False

    def seed_at(self, index: int) -> int:
        """The seed of the run's image (or other product) ``index``; once it starts again from 0,
        the log says so."""
        if self.seed + index >= SEEDS and not self._wrapped:
            self._wrapped = True
            logger.warning("After the last seed, %d, seeds start again from 0.", SEEDS - 1)
        return seed_at(self.seed, index)

    def peak_memory(self) -> dict[str, int]:
        """The most bytes of a GPU that tensors took, where the run's models were on one."""
        placed = self.models.placement.placed.values()
        gpu = next((each.torch for each in placed if each.torch.type == "cuda"), None)
        if gpu is None:
            return {}
        import torch

        return {"peak_memory_bytes": int(torch.cuda.max_memory_allocated(gpu))}

    @property
    def has_folder(self) -> bool:
        """Whether the run's folder is there by now (to ask makes none)."""
        return isinstance(self.__dict__.get("_folder"), Path)

    def unsaved(self) -> TaskContext:
        """The same run for a part of it whose files are not wanted in the folder."""
        return replace(self, folder=None, keep=None, store=None)

    def save(self, picture: OutputImage) -> Path:
        """Save a picture in ``folder`` at once, with its recipe and lineage; returns its path.

        For verbs that make more pictures than memory holds; others put them into their Result.
        Where another file has the picture's name it gets the next free one (``face-2.png``).

        Raises:
            CannotDo: this run is not saved.
            OutputError: the picture cannot be written.
        """
        if self.keep is None:
            raise CannotDo(f"This run is not saved, so {picture.name} has no place.")
        return self.keep(picture)

    def saved(self, picture: OutputImage) -> OutputImage:
        """The picture, saved at once where the run is saved and then no longer held in memory."""
        if self.keep is None:
            return picture
        path = self.keep(picture)
        return OutputImage(picture.name, None, picture.parents, picture.note, path=path)

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

    def open_image(
        self, file: str | Path, *, background: tuple[int, int, int] = (255, 255, 255)
    ) -> Image.Image:
        """The RGB picture of a file, or one that was given in memory under that name.

        Raises:
            ImageError: a file that does not give a picture.
        """
        from guided.core.images import open_image

        held = self.given.get(str(file))
        return held.convert("RGB") if held is not None else open_image(file, background=background)

    def world(self, role: str = "", model: str = "") -> World:
        """The kit's world; none where another ``model`` than the kit's own has the ``role``.

        Raises:
            UsageError: the kit names a world that there is not.
        """
        other = model not in ("", self.kit.get(role))
        return NO_WORLD if other else load_world(self.world_name)

    @cached_property
    def models(self) -> Models:
        """The models of this run, by the kit's names; ``models.of(options)`` those of a verb."""
        from guided.models import Models
        from guided.models.placement import Placement

        return Models(
            self.kit, {}, self.device_name, self.online, self.notes, self.objects, self.world_name,
            placement=Placement(self.device_name, self.dtype, self.offload),
        )  # fmt: skip

    @cached_property
    def device(self) -> Device:
        """The device of this run; the first touch imports torch."""
        from guided.core.device import Device

        return Device.pick(self.device_name)
