"""What the scripts that judge makers of pictures share: a sheet, a table, and the card."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from guided.core.files import write_bytes
from guided.core.images import to_images
from guided.core.toml import dumps
from guided.judging.text_image_figures import SAMPLES, Asked, Make, Row
from guided.portraits.sheet import sheet

#: Captions on a sheet, and pictures of each.
CAPTIONS, EACH = 8, 7


def caption_sheet(make: Make, size: int = 128) -> tuple[Image.Image, list[str]]:
    """For 8 captions the portrait that each was made for, then 7 pictures; and the captions."""
    asked = Asked.of("val", CAPTIONS, size=size)
    texts = [said.text for said in asked.said for _ in range(EACH)]
    made = make(texts, range(SAMPLES, SAMPLES + len(texts)))
    rows = torch.cat([asked.images[:, None], made.view(CAPTIONS, EACH, *made.shape[1:])], 1)
    return sheet(to_images(rows.flatten(0, 1)), EACH + 1), [said.text for said in asked.said]


def lines(label: str, rows: Mapping[str, Row], beside: Mapping[str, Row] | None = None) -> str:
    """A table of figures between their floors and ceilings, with another maker's values."""
    found = []
    for name, row in rows.items():
        extra = f"  against {beside[name].value:8.4f}" if beside and name in beside else ""
        found.append(
            f"{label}_{name:24s} {row.value:8.4f}  floor {row.floor:8.4f}  "
            f"ceiling {row.ceiling:8.4f}{extra}"
        )
    return "\n".join(found)


def rounded(label: str, rows: Mapping[str, Row]) -> dict[str, dict[str, float]]:
    """Figures as a card states them."""
    return {f"{label}_{name}": {k: round(v, 5) for k, v in vars(row).items()}
            for name, row in rows.items()}  # fmt: skip


def onto_card(card: Path, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Add figures to a card, where there is one."""
    if card.is_file():
        content = tomllib.loads(card.read_text("utf-8"))
        kept = {**content.get("metrics", {}), **metrics}
        write_bytes(card, dumps({**content, "metrics": kept}).encode())
