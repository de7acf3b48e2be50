"""A second world, of squares: small enough to read at once, whole enough for every verb."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

COLORS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220)}
SIZES = {"small": 16, "large": 48}
_FACTS = (tuple(COLORS), tuple(SIZES))


def draw(color: str, size: str) -> Image.Image:
    """A square on white paper."""
    paper = Image.new("RGB", (64, 64), "white")
    side = SIZES[size]
    paper.paste(COLORS[color], (32 - side // 2,) * 2 + (32 + side // 2,) * 2)
    return paper


@dataclass(frozen=True)
class SquareReader:
    """Reads colour and size off the pixels that are not paper."""

    def attributes(self, images: Sequence[Image.Image]) -> list[Mapping[str, Any]]:
        """For each image its colour and its size."""
        return [self._one(image.convert("RGB").resize((64, 64))) for image in images]

    @staticmethod
    def _one(image: Image.Image) -> Mapping[str, Any]:
        middle = image.getpixel((32, 32))
        color = min(
            COLORS, key=lambda c: sum(abs(a - b) for a, b in zip(COLORS[c], middle, strict=True))
        )
        return {
            "color": color,
            "size": "small" if image.getpixel((12, 32)) == (255,) * 3 else "large",
        }


@dataclass(frozen=True)
class SquareWorld:
    """The world of coloured squares."""

    name: str = "squares"
    image: str = "a square on white paper"
    neutral: str = "a square"
    templates: tuple[str, ...] = ("{}",)
    aligned: bool = True

    def recognizes(self, image: Image.Image) -> bool:
        """Whether the corners are white paper."""
        return all(image.convert("RGB").getpixel(at) == (255,) * 3 for at in ((0, 0), (-1, -1)))

    def contrast_prompts(self, text: str) -> Sequence[Sequence[str]]:
        """The text with another colour, and with the other size."""
        said = ((word, values) for values in _FACTS for word in values if re.search(word, text))
        return [[re.sub(w, other, text) for other in values if other != w] for w, values in said]

    def check_prompt(self, text: str) -> str:
        """That a text names neither a colour nor a size."""
        return "" if self.contrast_prompts(text) else f"{text!r} names no colour and no size."

    def reader(self, name: str, device: Any) -> SquareReader:
        """The reader; it needs no model."""
        return SquareReader()


WORLD = SquareWorld()
