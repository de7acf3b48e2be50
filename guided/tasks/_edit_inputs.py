"""What an edit begins with: pictures, faces cut out of photographs, saved latents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guided.core.text import absolute
from guided.errors import ImageError, ShapeError, UsageError
from guided.tasks.base import TaskContext

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.delta import Delta
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

    ctx: TaskContext
    size: int
    faces: Faces
    landmarks: Sequence[str] = ()
    face: int | None = None
    aligned: bool = False  # the world's images are faces as the generator draws them

    def subject(self, file: Path, position: int) -> list[Subject]:
        """The subjects in a file: one, or one for each latent of a latent file.

        Raises:
            GuidedError: whatever is wrong with the file or its landmarks.
        """
        from guided.core.faces import align

        held = str(file) in self.ctx.given
        if not held and file.suffix.lower() in LATENT_FILES:
            return _from_latents(file)
        path = file if held else absolute(file)
        saved = None if held else _remembered(path)
        picture = self.ctx.open_image(path)
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

        if not self.aligned and self.faces == "auto":
            raise UsageError(
                f"Where is the face in {path.name}? There is no face detector here.",
                hint=f"{_ASK}; or say --faces aligned if the face is already cut out FFHQ's way.",
            )
        return center_square(picture, self.size)


def _from_latents(file: Path) -> list[Subject]:
    from guided.generators.latents import read_delta

    delta = read_delta(file)
    path = absolute(file)
    stems = [path.stem if delta.rows == 1 else f"{path.stem}-{i + 1}" for i in range(delta.rows)]
    return [Subject(str(path), stem, saved=delta.row(i)) for i, stem in enumerate(stems)]


def needs_inversion(path: Path) -> bool:
    """Whether a file is an image whose latent has to be found: no latents, no saved edit."""
    return path.suffix.lower() not in LATENT_FILES and _remembered(absolute(path)) is None


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


def open_mask(ctx: TaskContext, path: Path, subject: Subject, size: int) -> Image.Image:
    """The mask [size, size] for a subject: white where the picture may change.

    It must be as large as the subject's file, or as the generator's picture.

    Raises:
        ShapeError: another size.
        UsageError: it covers nothing.
        ImageError: no picture.
    """
    from guided.core.images import resize

    mask = read_mask(ctx, path)
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


def read_mask(ctx: TaskContext, path: Path) -> Image.Image:
    """The RGB picture of a mask; what is transparent in it is black: it may not change.

    Raises:
        UsageError: it is black everywhere.
        ImageError: no picture.
    """
    mask = ctx.open_image(path, background=(0, 0, 0))
    _check_not_black(path, mask.convert("L"))
    return mask


def _check_not_black(path: Path, mask: Image.Image) -> None:
    if mask.getextrema()[1] == 0:
        raise UsageError(
            f"The mask {path.name} is black everywhere, or transparent: nothing may change.",
            hint="Paint white what the edit may change; what is transparent stays as it is.",
        )


def whole_mask(
    ctx: TaskContext, path: Path, whole: Image.Image, subject: Subject, size: int | None
) -> Image.Image:
    """The mask for a whole picture: as large as its file ``whole``, or as the square of ``size``.

    Raises:
        UsageError: it covers nothing, or everything.
        ShapeError: another size.
        ImageError: no picture.
    """
    from guided.core.images import center_square

    mask = read_mask(ctx, path)
    if size is not None and mask.size == whole.size:
        mask = center_square(mask, size)
    elif size is not None:
        mask = open_mask(ctx, path, subject, size)
    mask = mask.convert("L")
    _check_not_black(path, mask)
    if mask.getextrema()[0] == 255:
        raise UsageError(
            f"The mask {path.name} is white everywhere: nothing would stay.",
            hint="Leave --mask out and take --method sdedit, ddpm or p2p.",
        )
    return mask
