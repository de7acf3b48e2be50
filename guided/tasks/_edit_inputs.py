"""What an edit begins with: pictures, faces cut out of photographs, saved latents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guided.errors import ImageError, ShapeError, UsageError
from guided.tasks.base import Workbench

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.editing import Delta
    from guided.core.faces import Landmarks, Square
    from guided.core.protocols import Latent

logger = logging.getLogger(__name__)

Faces = Literal["auto", "aligned"]
LATENT_FILES = (".safetensors", ".pt", ".pth")
_ASK = "Give the two eyes and the two mouth corners: --landmarks x,y,x,y,x,y,x,y (or a .json file)"


@dataclass
class Subject:
    """One thing to edit.

    ``picture`` is what the generator should show (square, at its size) or None when only a latent
    is known; ``photo`` and ``square`` say where it was cut from; ``saved`` is a change from a
    file, with the ``strength`` its picture was drawn at.
    """

    file: str
    stem: str
    picture: Image.Image | None = None
    photo: Image.Image | None = None
    square: Square | None = None
    saved: Delta | None = None
    strength: float = 1.0
    prompt: str = ""
    masked: bool = False  # its latent's own picture has other pixels outside of a mask

    def source(self, size: int) -> Image.Image | None:
        """Its picture at the generator's size, where it has one."""
        if self.picture is None and self.photo is not None and self.square is not None:
            from guided.core.faces import cut

            return cut(self.photo, self.square, size)
        return self.picture

    @property
    def latent(self) -> Latent | None:
        """The latent it is known by, if it is."""
        return None if self.saved is None else self.saved.at(self.strength)


@dataclass(frozen=True)
class Opening:
    """How files are opened: the picture's ``size``, and where the faces are."""

    bench: Workbench
    size: int
    faces: Faces
    landmarks: Sequence[str] = ()
    face: int | None = None
    drawn: bool = False  # the kit's world is drawn portraits, which need no alignment

    def subject(self, file: Path, position: int) -> list[Subject]:
        """The subjects in a file: one, or one for each latent of a latent file.

        Raises:
            GuidedError: whatever is wrong with the file or its landmarks.
        """
        from guided.core.faces import align

        held = str(file) in self.bench.given
        if not held and file.suffix.lower() in LATENT_FILES:
            return _from_latents(file)
        path = file if held else file.expanduser().absolute()
        saved = None if held else _remembered(path)
        picture = self.bench.open_image(path)
        if saved is not None:
            return [_continued(path, picture, saved, self.size)]
        subject = Subject(str(path), path.stem)
        if self.landmarks:
            subject.photo = picture
            face = self._face(position)
            subject.picture, subject.square = align(picture, face, self.size)
        else:
            subject.picture = self._whole(picture, path)
        return [subject]

    def _face(self, position: int) -> Landmarks:
        """The landmarks for the file in that position, one face chosen."""
        from guided.core.faces import read_landmarks

        given = self.landmarks
        if position >= len(given):
            raise UsageError(
                f"There are landmarks for {len(given)} picture(s), none for number {position + 1}.",
                hint="Repeat --landmarks, once for each picture, in their order.",
            )
        found = read_landmarks(given[position])
        if self.face is None and len(found) > 1:
            raise UsageError(
                f"There are {len(found)} faces in {given[position]}.",
                hint=f"Choose one with --face 1 to --face {len(found)}.",
            )
        number = self.face or 1
        if number > len(found):
            raise UsageError(
                f"There is no face {number} in {given[position]}; it has {len(found)}."
            )
        return found[number - 1]

    def _whole(self, picture: Image.Image, path: Path) -> Image.Image:
        """A picture without landmarks: a drawn portrait, or one that is said to be aligned."""
        from guided.core.images import center_square

        if not self.drawn and self.faces == "auto":
            raise UsageError(
                f"Where is the face in {path.name}? There is no face detector here.",
                hint=f"{_ASK}; or say --faces aligned if the face is already cut out FFHQ's way.",
            )
        return center_square(picture, self.size)


def _from_latents(file: Path) -> list[Subject]:
    from guided.generators.latents import read_delta

    delta = read_delta(file)
    path = file.expanduser().absolute()
    stems = [path.stem if delta.rows == 1 else f"{path.stem}-{i + 1}" for i in range(delta.rows)]
    return [Subject(str(path), stem, saved=delta.row(i)) for i, stem in enumerate(stems)]


def _remembered(path: Path) -> dict[str, Any] | None:
    """The note of a picture an earlier edit made, if its latent's file is still beside it."""
    from guided.core import lineage

    if path.suffix.lower() != ".png":
        return None
    try:
        known = lineage.read(path)
    except ImageError:
        return None
    note = dict(known.picture.note) if known is not None else {}
    name = note.get("latent")
    if not isinstance(name, str):
        return None
    if name != Path(name).name or not (path.parent / name).is_file():
        logger.warning("%s: its latent file %s is not beside it; it is inverted anew.", path, name)
        return None
    return note


def _continued(path: Path, picture: Image.Image, note: dict[str, Any], size: int) -> Subject:
    """A subject that goes on where the edit that drew the picture ended."""
    from guided.core.images import resize
    from guided.generators.latents import read_delta

    delta = read_delta(path.parent / str(note["latent"]))
    strength = note.get("strength")
    square = _square(note.get("square"))
    return Subject(
        str(path),
        path.stem,
        picture=None if square is not None else resize(picture, (size, size)),
        photo=None if square is None else picture,
        square=square,
        saved=delta,
        strength=float(strength) if isinstance(strength, (int, float)) else 1.0,
        prompt=str(note.get("prompt", "")),
        masked=note.get("masked") is True,
    )


def _square(numbers: Any) -> Square | None:
    from guided.core.faces import Square

    if not isinstance(numbers, list) or len(numbers) != 6:
        return None
    if not all(isinstance(number, (int, float)) for number in numbers):
        return None
    x, y, ax, ay, dx, dy = (float(number) for number in numbers)
    return Square((x, y), (ax, ay), (dx, dy))


def square_note(square: Square) -> list[float]:
    """The square as plain numbers, to be kept in a picture."""
    return [*square.corner, *square.across, *square.down]


def open_mask(path: Path, subject: Subject, size: int) -> Image.Image:
    """The mask [size, size] for a subject: white where the picture may change.

    It must be as large as the subject's file, or as the generator's picture.

    Raises:
        ShapeError: another size.
        ImageError: no picture.
    """
    from guided.core.images import open_image, resize

    mask = open_image(path)
    whole = subject.photo if subject.photo is not None else subject.picture
    if mask.size == (size, size) and subject.square is None:
        return mask.convert("L")
    if whole is not None and mask.size != whole.size:
        raise ShapeError(
            f"The mask {path.name} is {mask.width} x {mask.height} pixels, the picture "
            f"{Path(subject.file).name} {whole.width} x {whole.height}.",
            hint="Draw the mask on the picture itself, at the same size.",
        )
    if subject.square is None:
        return resize(mask, (size, size)).convert("L")
    from guided.core.faces import cut

    return cut(mask, subject.square, size).convert("L")


def looks_drawn(picture: Image.Image) -> bool:
    """Whether a picture has the flat areas of a drawing; photographs and their JPEGs have few.

    Drawn portraits have at least 0.71 of neighbouring pixels (nearly) equal at 128 pixels,
    photographs usually less than 0.4.
    """
    import numpy as np

    small = np.asarray(picture.convert("RGB").resize((128, 128))).astype(np.int16)
    steps = np.abs(np.diff(small, axis=1)).max(axis=2)
    return float((steps <= 1).mean()) >= 0.6
