from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from PIL import Image, ImageFont
from torch import Tensor

from guided.errors import CannotDo, ShapeError
from guided.guidance.zerocap_relevance import relevance
from guided.language.caption_sheets import caption_sheet, relevance_strip, wrapped
from tests.helpers import caption_models

# Fixtures.
one_thread = caption_models.one_thread


CORNERS = ("north", "south")


class Halves:
    """A scorer of red pictures: brightness of the upper half is "north", of the lower "south"."""

    name, width, scale = "halves", 2, 1.0

    def embed_images(self, images: Tensor) -> Tensor:
        upper, lower = images[:, 0].chunk(2, dim=1)
        return torch.stack([upper.mean((1, 2)), lower.mean((1, 2))], dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(text.split().count(c)) for c in CORNERS] for text in texts])


def test_each_word_points_to_its_half() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, ::8, ::8] = 1.0
    image[:, 0, 4:28, 8:24] = 1.0
    image[:, 0, 40:60, 40:56] = 1.0
    north, south, other = relevance(Halves(), image, "north south word", grid=4)
    assert (north.word, south.word, other.word) == ("north", "south", "word")
    means = Halves().embed_images(image)[0]
    assert north.gain == pytest.approx(float(means[0]))
    assert south.gain == pytest.approx(float(means[1]))
    assert other.gain == 0
    assert float(other.map.abs().max()) == 0
    assert int(north.map.flatten().argmax()) in (0, 1, 4, 5)
    assert int(south.map.flatten().argmax()) in (10, 11, 14, 15)


def test_what_cannot_be_shown() -> None:
    with pytest.raises(CannotDo, match="too few words"):
        relevance(Halves(), torch.zeros(1, 3, 8, 8), "north")
    with pytest.raises(ShapeError, match="image must have the shape"):
        relevance(Halves(), torch.zeros(2, 3, 8, 8), "north south")


def test_the_strip_is_bright_where_the_evidence_is() -> None:
    image = Image.new("RGB", (40, 40), (255, 255, 255))
    table = [[1.0, 0.0], [0.0, 0.0]]
    strip = relevance_strip(image, [("one", 0.1, table), ("two", 0.0, [[0.0] * 2] * 2)], cell=64)
    assert strip.getpixel((8 + 12, 8 + 12))[0] > 200
    assert strip.getpixel((8 + 52, 8 + 52))[0] < 120
    assert strip.getpixel((80 + 12, 8 + 12))[0] < 120
    with pytest.raises(ValueError, match="no word"):
        relevance_strip(image, [])


def test_captions_are_wrapped_and_whole() -> None:
    font = ImageFont.load_default(12)
    text = "a portrait of a smiling person with long red hair and an extraordinarilylongword here"
    lines = wrapped(text, 120, font)
    assert " ".join(lines) == text
    assert all(font.getlength(line) <= 120 or " " not in line for line in lines)


def test_a_sheet_has_room_for_everything() -> None:
    images = [Image.new("RGB", (30 + 10 * n, 60), (10, 20, 30)) for n in range(5)]
    page = caption_sheet(images, ["a long caption with many words " * 3] * 5, columns=3, cell=100)
    assert page.width == 3 * 108 + 8
    assert page.height > 2 * 100
    with pytest.raises(ValueError, match="given 1 and 2"):
        caption_sheet(images[:2], ["one"])
