"""What the scripts that judge makers of pictures share: a sheet, a table, and the card."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from PIL import Image

from guided.core.images import to_images
from guided.worlds.portraits.drawing.sheet import sheet
from guided.worlds.portraits.judging.text_image_figures import SAMPLES, Make, MetricRow, PromptSet

#: Captions on a sheet, and pictures of each.
CAPTIONS, EACH = 8, 7


def caption_sheet(make: Make, size: int = 128) -> tuple[Image.Image, list[str]]:
    """For 8 captions the portrait that each was made for, then 7 pictures; and the captions."""
    asked = PromptSet.of("val", CAPTIONS, size=size)
    texts = [said.text for said in asked.said for _ in range(EACH)]
    made = make(texts, range(SAMPLES, SAMPLES + len(texts)))
    rows = torch.cat([asked.images[:, None], made.view(CAPTIONS, EACH, *made.shape[1:])], 1)
    return sheet(to_images(rows.flatten(0, 1)), EACH + 1), [said.text for said in asked.said]


def lines(
    label: str, rows: Mapping[str, MetricRow], beside: Mapping[str, MetricRow] | None = None
) -> str:
    """A table of figures between their floors and ceilings, with another maker's values."""
    found = []
    for name, row in rows.items():
        extra = f"  against {beside[name].value:8.4f}" if beside and name in beside else ""
        found.append(
            f"{label}_{name:24s} {row.value:8.4f}  floor {row.floor:8.4f}  "
            f"ceiling {row.ceiling:8.4f}{extra}"
        )
    return "\n".join(found)


def labeled(label: str, rows: Mapping[str, MetricRow]) -> dict[str, dict[str, float]]:
    """Metrics for a card, named by the split that they are of."""
    return {f"{label}_{name}": dict(vars(row)) for name, row in rows.items()}
