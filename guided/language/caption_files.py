"""The files that captions are saved in: JSON lines as they are finished, a table at the end."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from guided.core.text import encodable

LINES, TABLE = "captions.jsonl", "captions.csv"
_COLUMNS = ("file", "rank", "text", "clip", "language", "total", "error")


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV: one line for each caption of each file, the best first, or its error."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if "error" in row:
            writer.writerow({"file": row["file"], "error": row["error"]})
        for rank, caption in enumerate(row.get("captions", ()), start=1):
            writer.writerow({"file": row["file"], "rank": rank, **caption})
    return encodable(text.getvalue())
