"""Captions to look at: a contact sheet, and a strip that shows where each word comes from."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _FAINT = (250, 250, 252), (52, 48, 64), (128, 124, 140)
_LINE, _SIZE, _GAP = 16, 12, 8

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def caption_sheet(
    images: Sequence[Image.Image], captions: Sequence[str], columns: int = 4, cell: int = 224
) -> Image.Image:
    """All pictures in rows of ``columns``, each with its whole caption wrapped below.

    Raises:
        ValueError: no pictures, or not one caption for each.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"a sheet needs as many captions as pictures, from 1 of each up; "
                         f"given {len(captions)} and {len(images)}")  # fmt: skip
    font = ImageFont.load_default(_SIZE)
    texts = [wrapped(text, cell, font) for text in captions]
    columns = min(columns, len(images))
    rows = [range(start, min(start + columns, len(images)))
            for start in range(0, len(images), columns)]  # fmt: skip
    heights = [cell + _LINE * max(len(texts[place]) for place in row) + 2 * _GAP for row in rows]
    page = Image.new("RGB", (columns * (cell + _GAP) + _GAP, sum(heights) + _GAP), _PAPER)
    pen = ImageDraw.Draw(page)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, place in enumerate(row):
            left = _GAP + column * (cell + _GAP)
            small = _fitted(images[place], cell)
            page.paste(small, (left + (cell - small.width) // 2, top + (cell - small.height) // 2))
            for line, text in enumerate(texts[place]):
                pen.text((left, top + cell + 4 + _LINE * line), text, fill=_INK, font=font)
        top += height
    return page


def relevance_strip(
    image: Image.Image,
    words: Sequence[tuple[str, float, Sequence[Sequence[float]]]],
    columns: int = 6,
    cell: int = 128,
) -> Image.Image:
    """The picture once for each word, bright where the word's evidence lies.

    ``words`` holds a word, the cosine it adds, and a square table of how much each part of the
    picture counts; tables share one scale, so that words can be compared.

    Raises:
        ValueError: no words.
    """
    if not words:
        raise ValueError("there is no word to show")
    font = ImageFont.load_default(_SIZE)
    most = max((value for _, _, table in words for row in table for value in row), default=0.0)
    base = image.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
    dim = Image.blend(base, Image.new("RGB", base.size, (20, 18, 30)), 0.7)
    height = cell + _LINE + _GAP
    columns = min(columns, len(words))
    rows = -(-len(words) // columns)
    page = Image.new("RGB", (columns * (cell + _GAP) + _GAP, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(page)
    for place, (word, gain, table) in enumerate(words):
        left = _GAP + place % columns * (cell + _GAP)
        top = _GAP + place // columns * height
        page.paste(Image.composite(base, dim, _mask(table, most, cell)), (left, top))
        pen.text((left, top + cell), word, fill=_INK, font=font)
        shown = f"{gain:+.3f}"
        pen.text((left + cell, top + cell), shown, fill=_FAINT, font=font, anchor="ra")
    return page


def wrapped(text: str, width: int, font: Font) -> list[str]:
    """The lines of a text no wider than ``width`` pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def _fitted(image: Image.Image, cell: int) -> Image.Image:
    """The picture scaled so that its longer side is ``cell``."""
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _mask(table: Sequence[Sequence[float]], most: float, cell: int) -> Image.Image:
    """A smooth mask of a table of values, 255 at ``most``; by square roots, to show faint parts."""
    scale = 1 / most if most > 0 else 0.0
    shares = [min(1.0, max(0.0, scale * value)) for row in table for value in row]
    values = bytes(round(255 * share**0.5) for share in shares)
    small = Image.frombytes("L", (len(table[0]), len(table)), values)
    return small.resize((cell, cell), Image.Resampling.BICUBIC)
