"""What an edit hands back: pictures, strips, sweeps, animations, the saved latent, the figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.files import safe_name
from guided.core.run import OutputImage
from guided.tasks._edit_inputs import Subject, square_note
from guided.tasks._edit_options import EditOptions
from guided.tasks._ledger import Ledger

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.delta import Delta


@dataclass(frozen=True)
class Edited:
    """One finished edit: the subject, the prompt, the method, the strength, and its pictures.

    ``change`` is the change of its latent, where it has one; ``masked`` says that other pixels were
    put back outside of a mask; ``sweep`` and ``frames`` are further strengths; ``tried`` are the
    methods that CLIP agreed with less, before this one.
    """

    subject: Subject
    prompt: str
    method: str
    strength: float
    before: Image.Image
    after: Image.Image
    metrics: dict[str, Any]
    change: Delta | None
    masked: bool
    sweep: Sequence[Image.Image]
    frames: Sequence[Image.Image]
    tried: Sequence[str] = ()

    def or_rather(self, other: Edited) -> Edited:
        """This or the same edit by another method: what CLIP agrees with, or likes more."""
        own, its = ((e.metrics["agrees"], e.metrics["clip_after"]) for e in (self, other))
        best, worse = (other, self) if its > own else (self, other)
        return replace(best, tried=(*self.tried, worse.method))

    def whole(self, paste: Any) -> Image.Image:
        """The edited picture, put back into the photograph where it came from one."""
        from guided.core.faces import paste_back

        photo, square = self.subject.photo, self.subject.square
        if photo is None or square is None:
            return self.after
        return paste_back(photo, self.after, square, before=self.before, paste=paste)


@dataclass
class Outputs:
    """Makes the answer's results, saves their files, and finds unique names for both."""

    ledger: Ledger
    options: EditOptions
    taken: set[str]

    def add(self, edit: Edited) -> dict[str, Any]:
        """The answer's entry for an edit; its latent and animation are saved."""
        from guided.generators.latents import pack_delta

        name = self._free(f"{safe_name(edit.subject.stem)}-{safe_name(edit.prompt)}")
        latent = None if edit.change is None else f"{name}.safetensors"
        image = self._picture(f"{name}.png", edit.whole(self.options.paste), edit, latent)
        entry: dict[str, Any] = {
            "file": edit.subject.file, "prompt": edit.prompt, **verdict(edit.metrics),
            "method": edit.method, "image": image, "strength": edit.strength,
            "metrics": edit.metrics,
        }  # fmt: skip
        if edit.tried:
            entry["tried"] = list(edit.tried)
        if edit.change is not None and latent is not None:
            entry["latent"] = self.ledger.write(latent, pack_delta(edit.change))
        if self.options.strip:
            strip = side_by_side([edit.before, edit.after])
            entry["strip"] = self._picture(f"{name}-strip.png", strip, edit)
        if edit.sweep:
            entry["sweep"] = self._picture(f"{name}-sweep.png", side_by_side(edit.sweep), edit)
        if edit.frames:
            entry["animation"] = self.ledger.write(f"{name}.gif", animation(edit.frames))
        return entry

    def _picture(
        self, name: str, image: Image.Image, edit: Edited, latent: str | None = None
    ) -> OutputImage:
        note: dict[str, Any] = {
            "prompt": edit.prompt, "strength": edit.strength, "method": edit.method
        }  # fmt: skip
        if edit.masked and edit.change is not None:
            note["masked"] = True
        if latent is not None:
            note["latent"] = latent
            if edit.subject.square is not None and edit.subject.photo is not None:
                note["square"] = square_note(edit.subject.square)
        file = Path(edit.subject.file)
        is_picture = edit.subject.picture is not None or edit.subject.photo is not None
        parents = (str(file),) if is_picture and file.is_absolute() and file.is_file() else ()
        if not parents and edit.subject.file and edit.change is not None:
            note["from"] = file.name
        return OutputImage(name, image, parents, note)

    def _free(self, name: str) -> str:
        number, free = 1, name
        while free in self.taken:
            number += 1
            free = f"{name}-{number}"
        self.taken.add(free)
        return free


def verdict(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The key ``verdict``: what CLIP says of an edit, in a line; nothing where it was not asked."""
    if "agrees" not in metrics:
        return {}
    cosines = f"({metrics['clip_before']:.2f} before, {metrics['clip_after']:.2f} now)"
    if not metrics["agrees"]:
        text = f"CLIP does not see it {cosines}: other words or a larger --strength may help"
    elif metrics["clip_gain"] > 0:
        text = f"CLIP sees it {cosines}"
    else:
        text = f"CLIP sees it, but no better than before {cosines}: was it there already?"
    return {"verdict": text}


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures in one row."""
    from guided.core.images import grid

    return grid(images, len(images))


def animation(frames: Sequence[Image.Image]) -> bytes:
    """A GIF that goes from the original to the edit and back."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    held = [600 if i in (0, len(frames) - 1) else 80 for i in range(len(there_and_back))]
    out = io.BytesIO()
    there_and_back[0].save(
        out, "GIF", save_all=True, append_images=there_and_back[1:], duration=held, loop=0
    )
    return out.getvalue()


def means(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean of each figure over all results."""
    names = sorted({name for result in results for name in result["metrics"]})
    return {
        name: sum(float(result["metrics"][name]) for result in results) / len(results)
        for name in names
        if all(name in result["metrics"] for result in results)
    }
