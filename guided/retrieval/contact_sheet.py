"""Search results to look at: a contact sheet and a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from guided.core.images import WHITE, grid, open_image
from guided.core.text import encodable, one_line
from guided.errors import ImageError
from guided.retrieval.scan import missing
from guided.retrieval.search import SearchResult

_LINE = 16
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    hits: Sequence[SearchResult], side: int = 160, columns: int = 5
) -> Image.Image | None:
    """The pictures of the hits, best first, each with rank, score and name; None without hits.

    A picture that is gone or damaged by now leaves a grey cell; of one that is gone it says so.
    """
    if not hits:
        return None
    cells = [_cell(rank, hit, side) for rank, hit in enumerate(hits, start=1)]
    return grid(cells, min(columns, len(cells)))


def _cell(rank: int, hit: SearchResult, side: int) -> Image.Image:
    cell = Image.new("RGB", (side, side + 2 * _LINE), WHITE)
    try:
        picture = open_image(hit.file, at_least=(side, side))
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    except ImageError:
        picture = Image.new("RGB", (side, side), (200, 200, 200))
    cell.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(size=_LINE - 4)
    if missing(hit.file):
        draw.text((side // 2, side // 4), "missing", (90, 90, 90), font, anchor="mm")
    folded = f" (+{len(hit.duplicates)})" if hit.duplicates else ""
    draw.text((2, side), f"{rank}.  {hit.score:.3f}{folded}", fill=(0, 0, 0), font=font)
    draw.text((2, side + _LINE), _fitting(hit.file, draw, font, side - 4), (90, 90, 90), font)
    return cell


def _fitting(file: str, draw: ImageDraw.ImageDraw, font: Font, room: int) -> str:
    """The file's name, shortened in the middle until it fits."""
    name = one_line(Path(file).name)
    for kept in range(len(name), 0, -1):
        shown = name if kept == len(name) else f"{name[: kept // 2]}...{name[-(kept // 2) :]}"
        if draw.textlength(shown, font=font) <= room:
            return shown
    return ""


def table(hits: Sequence[SearchResult]) -> str:
    """The hits as CSV: rank, score, file, duplicates (separated by |), and "missing" where the
    file is not there, with the duplicates that are not.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rank", "score", "file", "duplicates", "missing"])
    for rank, hit in enumerate(hits, start=1):
        lost = ["missing"] if missing(hit.file) else []
        lost += [file for file in hit.duplicates if missing(file)]
        duplicates = "|".join(hit.duplicates)
        rows.writerow([rank, f"{hit.score:.6f}", hit.file, duplicates, "|".join(lost)])
    return encodable(text.getvalue())
