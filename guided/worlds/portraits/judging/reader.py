"""The reader: looks at a portrait and names every attribute, with how sure it is.

A judge: nothing is ever optimised, selected or stopped by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from guided.core.device import Device
from guided.core.images import to_tensor
from guided.core.reading import read_json
from guided.core.shapes import expect
from guided.errors import CorruptWeights, ShapeError, library_message
from guided.nets.reader import SIZE, ReaderNet
from guided.worlds.portraits import KEYS, VALUES, Portrait
from guided.worlds.portraits.attributes import Attributes
from guided.worlds.portraits.training.reading import CLASSES, accuracies, floors
from guided.worlds.portraits.training.world_data import codes_of
from guided.zoo.packing import load_weights
from guided.zoo.resolve import find_folder

WEIGHTS = "model.safetensors"
#: Pictures in one pass through the network.
ROWS = 128


@dataclass(frozen=True)
class ReaderOutput:
    """What the reader sees in one picture.

    ``attributes`` maps every key of the world to its likeliest value (``hat_color`` is None when
    no hat is seen); ``probabilities`` maps every key to value -> probability, summing to 1;
    ``distance`` is how unlike a drawn portrait the picture is, as a share of the largest distance
    that drawn portraits have: above 1 the answers mean little (``drawn`` is then False).
    """

    attributes: Attributes
    probabilities: dict[str, dict[str, float]]
    distance: float

    @property
    def drawn(self) -> bool:
        """Whether the picture looks like a drawn portrait."""
        return self.distance <= 1

    @property
    def warning(self) -> str:
        """A sentence for a picture that is no drawn portrait, else nothing."""
        if self.drawn:
            return ""
        return (
            f"This is not a drawn portrait ({self.distance:.1f} times as far from them as they "
            "ever are from each other): the answers mean little."
        )


class Reader:
    """A trained ``ReaderNet`` on a device, frozen."""

    def __init__(self, net: ReaderNet, device: Device, sha256: str = "") -> None:
        self.net = device.prepare(net)
        self.device = device
        self.sha256 = sha256

    @classmethod
    def load(cls, name: str = "reader", device: Device | None = None) -> Reader:
        """The reader of that name, or in that folder.

        Raises:
            MissingWeights: there is none of that name here.
            CorruptWeights: its files are damaged or do not fit together.
        """
        folder, sha256 = find_folder(name, "reader", WEIGHTS)
        try:
            config = read_json(folder / "config.json")
            net = ReaderNet(CLASSES, **config)
            net.load_state_dict(
                {name: t.float() if t.is_floating_point() else t
                 for name, t in load_weights(folder / WEIGHTS).items()}
            )  # fmt: skip
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise CorruptWeights(
                f"The reader {name!r} in {folder} does not fit this version: "
                f"{library_message(error)}.",
                hint="Get it again, or rebuild it with scripts/build reader.",
            ) from error
        return cls(net, device or Device.pick(), sha256)

    @torch.no_grad()
    def read(self, images: Tensor) -> list[ReaderOutput]:
        """A Reading for each picture of images [B, 3, H, W], sRGB in [0, 1], of any size.

        Raises:
            ShapeError: another shape.
        """
        readings: list[ReaderOutput] = []
        for part in _chunks(images):
            maps = self.net.maps(self._fitted(part))
            logits = self.net.answer(self.net.penultimate(maps[-1])).float()
            far = (self.net.distance(maps) / self.net.domain_limit).tolist()
            sure = [answer.softmax(1).tolist() for answer in self.net.split(logits)]
            readings += [
                _reading([column[row] for column in sure], far[row]) for row in range(len(part))
            ]
        return readings

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features [B, F], float32, not negative, of images [B, 3, H, W] in [0, 1].

        Raises:
            ShapeError: another shape.
        """
        parts = [self.net.features(self._fitted(part)).float() for part in _chunks(images)]
        return torch.cat(parts) if parts else torch.empty(0, self.net.hidden.out_features)

    def _fitted(self, images: Tensor) -> Tensor:
        """The pictures at the reader's size, a smaller copy averaging what it leaves out."""
        images = self.device.move(images)
        if images.shape[2:] != (SIZE, SIZE):
            images = F.interpolate(
                images, (SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False
            )
        return images.clamp(0, 1)


def _chunks(images: Tensor) -> Sequence[Tensor]:
    expect(images, "b 3 h w", "images")
    return torch.split(images, ROWS) if len(images) else ()


def _reading(sure: Sequence[Sequence[float]], distance: float) -> ReaderOutput:
    probabilities = {
        key: dict(zip(VALUES[key], row, strict=True)) for key, row in zip(KEYS, sure, strict=True)
    }
    attributes: dict[str, Any] = {
        key: max(values, key=values.__getitem__) for key, values in probabilities.items()
    }
    if attributes["hat"] == "none":
        attributes["hat_color"] = None
    return ReaderOutput(attributes, probabilities, distance)


@dataclass(frozen=True)
class Accuracy:
    """How often an attribute was read right, on how many pictures that show it, and its floor.

    ``floor`` is what always answering the most frequent value of these pictures would reach.
    """

    value: float
    floor: float
    count: int


def accuracy(
    reader: Reader, portraits: Sequence[Portrait], images: Tensor | Sequence[Image.Image]
) -> dict[str, Accuracy]:
    """The reader's accuracy for each attribute, counted where the portrait shows it.

    ``images`` [B, 3, H, W] in [0, 1] (or pictures of one size) belong to ``portraits`` row by row.
    An attribute that none shows is left out.

    Raises:
        ShapeError: as many portraits as pictures are needed.
    """
    tensor = images if isinstance(images, Tensor) else to_tensor(list(images))
    if len(portraits) != len(tensor):
        raise ShapeError(f"{len(portraits)} portraits cannot judge {len(tensor)} pictures.")
    codes = np.array([codes_of(portrait) for portrait in portraits]).reshape(-1, len(KEYS))
    seen = np.array([[portrait.visible()[key] for key in KEYS] for portrait in portraits]).reshape(
        -1, len(KEYS)
    )
    read = [
        [max(range(len(p)), key=list(p.values()).__getitem__) for p in r.probabilities.values()]
        for r in reader.read(tensor)
    ]
    values = accuracies(np.array(read).reshape(-1, len(KEYS)), codes, seen)
    lows, counts = floors(codes, seen), dict(zip(KEYS, seen.sum(0).tolist(), strict=True))
    return {key: Accuracy(value, lows[key], counts[key]) for key, value in values.items()}
