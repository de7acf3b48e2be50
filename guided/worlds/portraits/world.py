"""The drawn portraits as a world: how they look, what a prompt competes with, who reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from guided.core.device import Device
    from guided.worlds.portraits.judging.reader import Reader

#: Share of equal neighbouring pixels from which a picture passes for a drawing; drawn portraits of
#: 96 to 256 pixels have at least 0.63, photographs usually less than 0.4.
FLAT = 0.6


@dataclass(frozen=True)
class PortraitReader:
    """The reader of drawn portraits, as the studio asks it."""

    net: Reader

    def attributes(self, images: Sequence[Image.Image]) -> list[Mapping[str, Any]]:
        """For each image its attributes by name."""
        from guided.core.images import to_tensor

        readings = [self.net.read(to_tensor([image]))[0] for image in images]
        return [dict(reading.attributes) for reading in readings]


@dataclass(frozen=True)
class PortraitWorld:
    """The world of drawn portraits."""

    name: str = "portraits"
    image: str = "a drawn portrait"
    neutral: str = "a portrait"
    templates: tuple[str, ...] = ("{}",)
    aligned: bool = True

    def recognizes(self, image: Image.Image) -> bool:
        """Whether an image has the flat areas of a drawing; photographs and JPEGs have few."""
        import numpy as np

        side = max(2, min(128, *image.size))  # enlarging would smooth what is flat
        small = np.asarray(image.convert("RGB").resize((side, side))).astype(np.int16)
        steps = np.abs(np.diff(small, axis=1)).max(axis=2)
        return float((steps <= 1).mean()) >= FLAT

    def contrast_prompts(self, text: str) -> Sequence[Sequence[str]]:
        """The text with one of its facts changed to another value, by fact."""
        from guided.worlds.portraits.grammar.contrast_prompts import contrast_prompts_by_attribute

        return contrast_prompts_by_attribute(text)

    def check_prompt(self, text: str) -> str:
        """That a prompt names nothing which drawn portraits have, where that is so."""
        if not text.strip() or self.contrast_prompts(text):
            return ""
        return (
            f"{text!r} names nothing that a drawn portrait has: hair, beard, glasses, hat, "
            "expression, skin, clothing, background or the word on the shirt."
        )

    def reader(self, name: str, device: Device) -> PortraitReader:
        """The reader of that name.

        Raises:
            MissingWeights: it is not on this computer.
        """
        from guided.worlds.portraits.judging.reader import Reader

        return PortraitReader(Reader.load(name or "reader", device))


WORLD = PortraitWorld()
