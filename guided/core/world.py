"""Worlds: what a kit knows about the domain of its images, by the name that the kit gives.

A world recognises its images, names the texts that a prompt competes with, and brings a reader.  It
is a folder of ``guided/worlds`` (or an entry point of the group ``guided.worlds``) whose module
``world`` holds ``WORLD``.  Nothing imports a world but this module, by name; without one
(``NO_WORLD``) no prompt has contrasts other than what the user gives.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from guided.core.installed import points_of
from guided.errors import CannotDo, UsageError, nearest

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.device import Device

FOLDER = Path(__file__).parents[1] / "worlds"
GROUP = "guided.worlds"


class WorldReader(Protocol):
    """Names the attributes of a world's images; a judge, so nothing is optimised against it."""

    def attributes(self, images: Sequence[Image.Image]) -> list[Mapping[str, Any]]:
        """For each image its attributes by name."""
        ...


@runtime_checkable
class World(Protocol):
    """The domain of a kit's images.

    ``name`` is the kit's word for it ("" where there is none), ``image`` what one of its images is
    called ("a drawn portrait").  ``neutral`` is a text that fits all its images, ``templates`` are
    the sentences with {} that its scorer has learnt (or the name of an ensemble).  ``aligned`` says
    that its images are faces cut out as its generator draws them.
    """

    @property
    def name(self) -> str:
        """The word that a kit gives."""
        ...

    @property
    def image(self) -> str:
        """What one of its images is called."""
        ...

    @property
    def neutral(self) -> str:
        """A text that fits every one of its images."""
        ...

    @property
    def templates(self) -> Sequence[str]:
        """Sentences with {}, or the name of an ensemble."""
        ...

    @property
    def aligned(self) -> bool:
        """Whether its images need no alignment of faces."""
        ...

    def recognizes(self, image: Image.Image) -> bool:
        """Whether an image may be one of this world."""
        ...

    def contrast_prompts(self, text: str) -> Sequence[Sequence[str]]:
        """The text with one fact changed to another value, those of the same fact together."""
        ...

    def check_prompt(self, text: str) -> str:
        """What of a prompt this world cannot show, as a sentence; empty where it can."""
        ...

    def reader(self, name: str, device: Device) -> WorldReader:
        """The judge that reads images of this world, by its model's name."""
        ...


@dataclass(frozen=True)
class NoWorld:
    """The world of a kit that names none: anything may be shown, nothing is known of it."""

    name: str = ""
    image: str = "an image"
    neutral: str = "a photo"
    templates: tuple[str, ...] = ("openai",)
    aligned: bool = False

    def recognizes(self, image: Image.Image) -> bool:
        """True of every image."""
        return True

    def contrast_prompts(self, text: str) -> Sequence[Sequence[str]]:
        """None: only the user knows what a text is to be contrasted with."""
        return []

    def check_prompt(self, text: str) -> str:
        """Empty: every text is allowed."""
        return ""

    def reader(self, name: str, device: Device) -> WorldReader:
        """There is none.

        Raises:
            CannotDo: always.
        """
        raise CannotDo(
            "This kit has no world, so nothing can read attributes from images.",
            hint="Take a kit that has one: --kit portraits",
        )


NO_WORLD = NoWorld()


def world_names() -> list[str]:
    """The names of all worlds, sorted."""
    here = (path.parent.name for path in FOLDER.glob("*/world.py"))
    return sorted({*here, *(point.name for point in points_of(GROUP))})


def world_folders() -> Iterator[Path]:
    """The folders of the worlds of this package, by name."""
    return iter(sorted(path.parent for path in FOLDER.glob("*/world.py")))


def load_world(name: str) -> World:
    """The world of that name; ``NO_WORLD`` for the empty name.

    Raises:
        UsageError: there is none of that name.
        CannotDo: what carries the name is no world.
    """
    if not name:
        return NO_WORLD
    if name not in world_names():
        raise UsageError(f"There is no world {name!r}.", hint=nearest(name, world_names()))
    point = next((p for p in points_of(GROUP) if p.name == name), None)
    if point is not None:
        world = point.load()
    else:
        world = importlib.import_module(f"guided.worlds.{name}.world").WORLD
    if not isinstance(world, World):
        raise CannotDo(f"The world {name!r} is a {type(world).__name__}, which is no World.")
    return world


def contrasts(world: World, text: str) -> list[str]:
    """All contrast prompts of a text in one list, each once."""
    return list(dict.fromkeys(chain.from_iterable(world.contrast_prompts(text))))
