"""The process that draws a pool's missing shards, started as a module by ``world_data``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import cast

from guided.errors import OutputError
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.training.world_data import draw_missing


def main(words: list[str]) -> None:
    """Draw what the arguments say: folder, split, size, first, count, shard, parent process."""
    folder, split, *numbers = words
    size, first, count, shard, parent = map(int, numbers)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that half a file is deleted
    try:
        draw_missing(Path(folder), cast(Split, split), size, first, count, shard, parent)
    except OutputError as error:
        sys.exit(f"guided: {error}")


def _end_with_parent() -> None:
    """End this process when the other end of its standard input closes: the parent is gone."""
    os.read(0, 1)  # not sys.stdin, whose lock would abort the exit
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
