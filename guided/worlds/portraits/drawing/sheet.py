"""Contact sheets: many pictures in rows and columns, with a short caption under each."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_CAPTION_HEIGHT = 14
_PAPER = (250, 250, 252)
_TEXT = (52, 48, 64)


def sheet(
    images: Sequence[Image.Image], columns: int, captions: Sequence[str] | None = None
) -> Image.Image:
    """All images in rows of ``columns``, in cells as large as the largest, captions below them.

    A caption too long for its cell is cut with an ellipsis.

    Raises:
        ValueError: no images, no columns, or not one caption for each image.
    """
    if not images or columns < 1:
        raise ValueError("a sheet needs at least one image and one column")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} images need as many captions, not {len(captions)}")
    wide, high = max(i.width for i in images), max(i.height for i in images)
    cell = high + (_CAPTION_HEIGHT if captions else 0)
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (wide * min(columns, len(images)), cell * rows), _PAPER)
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(10)
    for index, image in enumerate(images):
        x, y = index % columns * wide, index // columns * cell
        page.paste(
            image.convert("RGB"), (x + (wide - image.width) // 2, y + (high - image.height) // 2)
        )
        if captions:
            text = _cut(captions[index], wide - 4, font)
            pen.text((x + wide / 2, y + high + 1), text, fill=_TEXT, font=font, anchor="ma")
    return page


def _cut(text: str, room: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..."
