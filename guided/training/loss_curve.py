"""The course of a training: a table of all figures and a small picture of the losses."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from guided.training.state import Row

WIDTH, HEIGHT, MARGIN = 640, 320, 44
_INK, _GRID, _PAPER = (40, 40, 48), (222, 222, 228), (255, 255, 255)
_LINES = {"loss": (36, 92, 190), "monitor": (200, 80, 30)}


def table(history: Sequence[Row]) -> bytes:
    """The history as CSV: a row for each report, a column for each figure ever reported."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()})
    return text.getvalue().encode()


def picture(history: Sequence[Row], title: str) -> bytes:
    """A PNG of 640 by 320 pixels: the loss on a logarithmic scale, and the first monitor figure."""
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    pen = ImageDraw.Draw(image)
    frame = (MARGIN, MARGIN // 2, WIDTH - MARGIN, HEIGHT - MARGIN)
    pen.rectangle(frame, outline=_GRID)
    pen.text((MARGIN, 5), title, fill=_INK)
    last = max((row["samples"] for row in history), default=0.0)
    pen.text((MARGIN, HEIGHT - MARGIN + 20), "0", fill=_INK)
    pen.text((WIDTH - 3 * MARGIN, HEIGHT - MARGIN + 20), f"{last:,.0f} samples", fill=_INK)
    losses = [
        (row["samples"], math.log10(row["loss"])) for row in history if row.get("loss", 0.0) > 0
    ]
    _line(pen, frame, losses, last, _LINES["loss"], left=True)
    monitored = next((n for row in history for n in row if n.startswith("monitor")), "")
    points = [(row["samples"], row[monitored]) for row in history if monitored in row]
    _line(pen, frame, points, last, _LINES["monitor"], left=False)
    pen.text((MARGIN, HEIGHT - MARGIN + 4), "loss (log10)", fill=_LINES["loss"])
    pen.text((WIDTH - 4 * MARGIN, HEIGHT - MARGIN + 4), monitored, fill=_LINES["monitor"])
    buffer = io.BytesIO()
    image.quantize(32).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _line(
    pen: ImageDraw.ImageDraw,
    frame: tuple[int, int, int, int],
    points: list[tuple[float, float]],
    last: float,
    color: tuple[int, int, int],
    *,
    left: bool,
) -> None:
    points = [point for point in points if math.isfinite(point[1])]
    if not points:
        return
    low, high = min(y for _, y in points), max(y for _, y in points)
    x0, y0, x1, y1 = frame
    spread = (high - low) or 1.0
    pixels = [
        (x0 + (x1 - x0) * x / max(last, 1.0), y1 - (y1 - y0) * (y - low) / spread)
        for x, y in points
    ]
    if len(pixels) > 1:
        pen.line(pixels, fill=color, width=2)
    edge = 4 if left else x1 + 4
    pen.text((edge, y0), f"{high:.3g}", fill=color)
    pen.text((edge, y1 - 12), f"{low:.3g}", fill=color)
