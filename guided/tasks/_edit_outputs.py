"""What an edit hands back: pictures, strips, sweeps, animations, the saved latent, the figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guided.core.files import safe_name
from guided.core.run import Picture
from guided.tasks._edit_inputs import Subject, square_note

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from guided.core.editing import Delta
    from guided.tasks._edit_regions import View


Paste = Literal["replace", "difference"]


@dataclass(frozen=True)
class Show:
    """Which further pictures to make of an edit, and how a face goes back into its photograph."""

    strip: bool = False
    sweep: Sequence[float] = ()
    frames: int = 0
    paste: Paste = "replace"


@dataclass
class Edited:
    """One finished edit: the subject, the prompt, its change, the strength, and its pictures."""

    subject: Subject
    prompt: str
    view: View
    strength: float
    before: Image.Image
    after: Image.Image
    metrics: dict[str, Any]

    @property
    def delta(self) -> Delta:
        """The change of one row."""
        return self.view.delta

    def whole(self, paste: Paste) -> Image.Image:
        """The edited picture, put back into the photograph where it came from one."""
        from guided.core.faces import paste_back

        photo, square = self.subject.photo, self.subject.square
        if photo is None or square is None:
            return self.after
        return paste_back(photo, self.after, square, before=self.before, paste=paste)


@dataclass
class Outputs:
    """Collects the answer's results, the files, and unique names for both."""

    folder: Path | None
    show: Show
    files: dict[str, str | bytes]
    taken: set[str]

    def add(self, edit: Edited) -> dict[str, Any]:
        """The answer's entry for an edit; its latent and animation join ``files``."""
        from guided.generators.latents import pack_delta

        name = self._free(f"{safe_name(edit.subject.stem)}-{safe_name(edit.prompt)}")
        latent = f"{name}.safetensors"
        self.files[latent] = pack_delta(edit.delta)
        entry: dict[str, Any] = {
            "file": edit.subject.file,
            "prompt": edit.prompt,
            "method": edit.delta.method,
            "image": self._picture(f"{name}.png", edit.whole(self.show.paste), edit, latent),
            "strength": edit.strength,
            "metrics": edit.metrics,
            "latent": str(self.folder / latent) if self.folder is not None else latent,
        }
        if self.show.strip:
            strip = side_by_side([edit.before, edit.after])
            entry["strip"] = self._picture(f"{name}-strip.png", strip, edit)
        if self.show.sweep:
            drawn = drawn_at(edit.view, self.show.sweep)
            entry["sweep"] = self._picture(f"{name}-sweep.png", side_by_side(drawn), edit)
        if self.show.frames:
            gif = f"{name}.gif"
            self.files[gif] = animation(edit.view, edit.strength, self.show.frames)
            entry["animation"] = str(self.folder / gif) if self.folder is not None else gif
        return entry

    def _picture(
        self, name: str, image: Image.Image, edit: Edited, latent: str | None = None
    ) -> Picture:
        note: dict[str, Any] = {
            "prompt": edit.prompt, "strength": edit.strength, "method": edit.delta.method
        }  # fmt: skip
        if edit.view.region is not None:
            note["masked"] = True
        if latent is not None:
            note["latent"] = latent
            if edit.subject.square is not None and edit.subject.photo is not None:
                note["square"] = square_note(edit.subject.square)
        file = Path(edit.subject.file)
        is_picture = edit.subject.picture is not None or edit.subject.photo is not None
        parents = (str(file),) if is_picture and file.is_absolute() and file.is_file() else ()
        if not parents and edit.subject.file:
            note["from"] = file.name
        return Picture(name, image, parents, note)

    def _free(self, name: str) -> str:
        number, free = 1, name
        while free in self.taken:
            number += 1
            free = f"{name}-{number}"
        self.taken.add(free)
        return free


def drawn_at(view: View, strengths: Sequence[float]) -> list[Image.Image]:
    """The pictures of a change of one row at several strengths, one by one."""
    from guided.core.images import to_images

    return [to_images(view.at(strength))[0] for strength in strengths]


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures in one row."""
    from guided.core.images import grid

    return grid(images, len(images))


def animation(view: View, strength: float, frames: int) -> bytes:
    """A GIF that goes from the original to the edit and back in ``frames`` steps each way."""
    steps = [strength * i / max(1, frames - 1) for i in range(frames)]
    drawn = drawn_at(view, steps)
    there_and_back = [*drawn, *drawn[-2:0:-1]]
    held = [600 if i in (0, frames - 1) else 80 for i in range(len(there_and_back))]
    out = io.BytesIO()
    there_and_back[0].save(
        out, "GIF", save_all=True, append_images=there_and_back[1:], duration=held, loop=0
    )
    return out.getvalue()


def changes(before: Tensor, after: Tensor, mask: Tensor | None) -> Tensor:
    """The mean absolute change [B] outside the mask, or everywhere without one."""
    moved = (after - before).abs().mean(1, keepdim=True)
    if mask is None:
        return moved.flatten(1).mean(1)
    keep = (1 - mask).expand_as(moved).flatten(1)
    return (moved.flatten(1) * keep).sum(1) / keep.sum(1).clamp(min=1)


def means(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean of each figure over all results."""
    names = sorted({name for result in results for name in result["metrics"]})
    return {
        name: sum(float(result["metrics"][name]) for result in results) / len(results)
        for name in names
        if all(name in result["metrics"] for result in results)
    }
