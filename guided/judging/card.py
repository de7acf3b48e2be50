"""Write metrics onto a model's card: the one place where a judge leaves its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from guided.core.files import write_bytes
from guided.core.reading import read_toml
from guided.core.toml import dumps

#: Bytes of the largest card that is read.
LARGEST = 1 << 20
#: Decimals that a card keeps.
DECIMALS = 5


def write_metrics(card: Path, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Add metrics to a card; those of other names stay, and a missing card is left missing.

    ``metrics`` has ``value`` and any of ``floor`` and ``ceiling`` for each name.
    """
    if not card.is_file():
        return
    content = read_toml(card, LARGEST)
    rounded = {
        name: {key: round(float(value), DECIMALS) for key, value in row.items()}
        for name, row in metrics.items()
    }
    merged = {**content.get("metrics", {}), **rounded}
    write_bytes(card, dumps({**content, "metrics": merged}).encode())
