"""The process that draws a pool's missing shards: ``python -m guided.training.draw_worker ...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

from guided.portraits.splits import Split
from guided.training.world_data import draw_missing


def main(words: list[str]) -> None:
    """Draw what the arguments say: folder, split, size, first, count, shard, parent process."""
    folder, split, *numbers = words
    size, first, count, shard, parent = map(int, numbers)
    if hasattr(os, "nice"):
        os.nice(1)
    draw_missing(Path(folder), cast(Split, split), size, first, count, shard, parent)


if __name__ == "__main__":
    main(sys.argv[1:])
