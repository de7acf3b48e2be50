"""Judge a shipped CLIP on new and on held-out-pair portraits: scripts/judge clip [NAME]

--style judge takes the captions of the judge's training.  Figures go to the card unless --dry.
"""

from __future__ import annotations

from collections.abc import Sequence

from guided.judging.card import write_metrics
from guided.scorers.clip import load_clip
from guided.worlds.portraits.judging.clip_figures import figures
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.cards import CARD_FILE
from guided.zoo.folders import SHIPPED

SPLITS: dict[str, Split] = {"new": "val", "pairs": "test"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every figure with its floor; keep them on the card unless --dry."""
    parser = tool_parser("judge clip", __doc__)
    parser.add_argument("name", nargs="?", default="clip", help="the name of a shipped CLIP")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--style", choices=("train", "judge"), default="train")
    parser.add_argument("--dry", action="store_true", help="leave the card alone")
    given = parser.parse_args(arguments)
    scorer = load_clip(f"local-dir:{SHIPPED / given.name}")
    metrics = {}
    for label, split in SPLITS.items():
        for name, figure in figures(scorer, split, given.style, given.count).items():
            print(f"{label}_{name:28s} {figure.rate}  floor {figure.floor:.3f}")
            metrics[f"{label}_{name}"] = {
                "value": figure.rate.value, "floor": figure.floor, "ceiling": figure.ceiling
            }  # fmt: skip
    if not given.dry:
        write_metrics(SHIPPED / given.name / CARD_FILE, metrics)
    return 0
