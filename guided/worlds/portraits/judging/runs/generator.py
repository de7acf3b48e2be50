"""Judge a generator of drawn portraits: scripts/judge generator [NAME] [--count 1000] [--dry]

Rows are sets of pictures: real portraits, the generator's at several truncations, and real ones
blurred, noisy or all alike.  The reader judges; nothing was optimised against it.  --sheet FILE
writes samples as one picture.  Figures go to the model's card.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from guided.core.images import to_images
from guided.core.seeds import Seeds
from guided.generators.stylegan2 import StyleGan2, load_stylegan2
from guided.judging.card import write_metrics
from guided.worlds.portraits.drawing.sheet import sheet
from guided.worlds.portraits.judging.generator_figures import (
    GeneratorFigures,
    generator_figures,
    real_pictures,
    spoiled,
)
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.tools import tool_parser
from guided.zoo import find
from guided.zoo.cards import CARD_FILE
from guided.zoo.kits import load_kit

#: World seeds and sample seeds that no training, monitor or other figure uses.
REAL, OTHERS, SAMPLES = 8_000_000, 8_100_000, 8_200_000
ROWS = 32


@torch.no_grad()
def samples(generator: StyleGan2, count: int, truncation: float) -> Tensor:
    """Pictures [count, 3, H, W] in [0, 1] of random latents."""
    parts = []
    for first in range(0, count, ROWS):
        seeds = Seeds.of(SAMPLES + first, min(ROWS, count - first))
        parts.append(generator.render(generator.start(seeds, truncation=truncation)).cpu())
    return torch.cat(parts)


def tables(generator: StyleGan2, reader: Reader, count: int) -> dict[str, GeneratorFigures]:
    """The figures of every row, by its name."""
    real = real_pictures(count, REAL, generator.size)
    known = reader.features(real)
    others = real_pictures(count, OTHERS, generator.size)
    sets = {"real": others}
    sets |= {f"psi {psi:g}": samples(generator, count, psi) for psi in (1.0, 0.7)}
    sets |= spoiled(others)
    return {name: generator_figures(reader, images, known) for name, images in sets.items()}


def metrics(rows: dict[str, GeneratorFigures]) -> dict[str, dict[str, float]]:
    """What goes on the card: the generator's figures beside real (ceiling) and spoilt (floor)."""
    real, blurred, blank = rows["real"], rows["blur"], rows["mean"]
    found: dict[str, tuple[float, float, float]] = {}
    for name, row in rows.items():
        if name.startswith("psi"):
            key = name.replace(" ", "").replace(".", "")
            found |= {
                f"{key}_confidence": (row.confidence, blurred.confidence, real.confidence),
                f"{key}_drawn": (row.drawn, blurred.drawn, real.drawn),
                f"{key}_variation": (row.worst_variation, blank.worst_variation,
                                     real.worst_variation),
                f"{key}_kid": (row.kid, blurred.kid, real.kid),
                f"{key}_spread": (row.spread, blank.spread, real.spread),
            }  # fmt: skip
    return {
        name: dict(zip(("value", "floor", "ceiling"), figures, strict=True))
        for name, figures in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; keep it on the card unless --dry."""
    parser = tool_parser("judge generator", __doc__)
    parser.add_argument("name", nargs="?", default="", help="a model's name or file")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--sheet", type=Path, help="write 48 samples as a picture")
    parser.add_argument("--dry", action="store_true", help="leave the card alone")
    given = parser.parse_args(arguments)
    name = given.name or load_kit("portraits")["generator"]
    path = Path(name) if Path(name).is_file() else find(name, "generator").path
    generator = load_stylegan2(path)
    if given.sheet:
        with torch.no_grad():
            shown = torch.cat([samples(generator, 24, psi) for psi in (1.0, 0.7)])
        sheet(to_images(shown), 12).save(given.sheet)
    rows = tables(generator, Reader.load(load_kit("portraits")["reader"]), given.count)
    real = rows["real"]
    print(f"{'pictures':9s} confidence (of real)  drawn  variation (worst)    kid     spread")
    for label, row in rows.items():
        mean = sum(row.variation.values()) / len(row.variation)
        print(f"{label:9s} {row.confidence:10.4f} {row.confidence / real.confidence:9.4f} "
              f"{row.drawn:6.3f} {mean:10.3f} {row.worst_variation:8.3f} {row.kid:9.4f} "
              f"{row.spread:8.3f}")  # fmt: skip
    if not given.dry:
        write_metrics(path.parent / CARD_FILE, metrics(rows))
    return 0
