"""Judge the text-to-image GAN of drawn portraits: scripts/judge text_gan [NAME] [--count 1000]

Each caption is of a new portrait (new) or of one that shows a pair of values kept from training
(pairs); truncation is off.  Every figure is printed between its floor and its ceiling.  --against
NAME judges another GAN (the checkpoint after the regression, say) in the same table; --sheet FILE
writes captions' pictures as one sheet.  Figures go to the model's card unless --dry.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from guided.core.seeds import Seeds
from guided.generators.text_gan import TextGan, load_text_gan, read_config
from guided.judging.card import write_metrics
from guided.scorers.clip import load_clip
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.judging.text_image_figures import (
    CAPTIONS,
    Make,
    MetricRow,
    text_image_figures,
)
from guided.worlds.portraits.judging.text_image_sheet import (
    caption_sheet,
    labeled,
    lines,
)
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.tools import tool_parser
from guided.zoo import find
from guided.zoo.cards import CARD_FILE
from guided.zoo.kits import load_kit

SPLITS: dict[str, Split] = {"new": "val", "pairs": "test"}
ROWS = 32


def opened(name: str) -> tuple[TextGan, Path]:
    """The GAN of a name or file with the CLIP it was trained with, and its weight file."""
    path = Path(name) if Path(name).is_file() else find(name, "text_gan").path
    scorer = str(read_config(path).get("scorer") or load_kit("portraits")["scorer"])
    return load_text_gan(path, load_clip(scorer)), path


def maker(gan: TextGan) -> Make:
    """Pictures of texts, one seed each, truncation off."""

    @torch.no_grad()
    def make(texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        parts = []
        for first in range(0, len(texts), ROWS):
            some = Seeds(tuple(seeds[first : first + ROWS]))
            parts.append(gan.render(gan.start(some, list(texts[first : first + ROWS]))).cpu())
        return torch.cat(parts)

    return make


def show(gan: TextGan, file: Path) -> None:
    """A sheet: for 8 captions the portrait each was made for, then 7 pictures."""
    image, captions = caption_sheet(maker(gan), gan.size)
    image.save(file)
    for place, text in enumerate(captions):
        print(f"row {place + 1} (world seed {CAPTIONS + place}): {text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; keep the first GAN's figures on its card unless --dry."""
    parser = tool_parser("judge text_gan", __doc__)
    parser.add_argument("name", nargs="?", default="", help="a model's name or file")
    parser.add_argument("--against", default="", help="another GAN for the same table")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--split", choices=(*SPLITS, "both"), default="both")
    parser.add_argument("--sheet", type=Path, help="write pictures of 8 captions")
    parser.add_argument("--dry", action="store_true", help="leave the card alone")
    given = parser.parse_args(arguments)
    kit = load_kit("portraits")
    gan, path = opened(given.name or kit["text_gan"])
    other = opened(given.against)[0] if given.against else None
    if given.sheet:
        show(gan, given.sheet)
    reader, judge = Reader.load(kit["reader"]), load_clip(kit["judge"], role="judge")
    metrics: dict[str, dict[str, float]] = {}
    for label, split in SPLITS.items():
        if given.split not in (label, "both"):
            continue
        found = text_image_figures(maker(gan), reader, judge, split, given.count, gan.size)
        beside: dict[str, MetricRow] = {}
        if other is not None:
            beside = text_image_figures(maker(other), reader, judge, split, given.count, other.size)
        print(lines(label, found, beside))
        metrics |= labeled(label, found)
    if not given.dry:
        write_metrics(path.parent / CARD_FILE, metrics)
    return 0
