"""Search speed against float32 products in PyTorch, and the time to look at an unchanged folder.

    scripts/bench search [--rows 200000] [--threads 1] [--device cpu|cuda|mps]

Vectors are clustered (2,000 centres, 48 directions of variation).  Recall counts results whose
float32 score is at least that of the float32 search's last result.  Times are those of the
processor; on a GPU those of the wall, and the folder, which only the processor reads, is left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from guided.core.device import Device
from guided.retrieval.exact import Matrix, nearest_rows
from guided.retrieval.scan import survey
from guided.retrieval.store import open_or_create
from guided.retrieval.update import update
from guided.retrieval.writer import Writer
from guided.worlds.portraits.benchmarks._machine import about, arguments, on_cpu, timed
from guided.worlds.portraits.tools import tool_parser


def vectors(rows: int, width: int) -> Tensor:
    """Unit vectors [rows, width], float16, in clusters."""
    dice = torch.Generator().manual_seed(0)
    centres = torch.randn(2000, width, generator=dice)
    axes = 0.3 * torch.randn(48, width, generator=dice)
    parts = []
    for start in range(0, rows, 20000):
        count = min(20000, rows - start)
        owner = torch.randint(2000, (count,), generator=dice)
        spread = torch.randn(count, 48, generator=dice) @ axes
        noise = 0.3 * torch.randn(count, width, generator=dice)
        parts.append(functional.normalize(centres[owner] + spread + noise, dim=1).half())
    return torch.cat(parts)


def compare(table: Tensor, matrix: Matrix, queries: Tensor, device: Device) -> dict[str, float]:
    """Milliseconds a query both ways, their ratio, and the recall at 10."""
    base, (expected, _) = timed(lambda: (queries @ table.T).topk(10), device, repeats=5)
    ours, (scores, _) = timed(lambda: nearest_rows(matrix, queries, 10), device, repeats=5)
    count = len(queries)
    return {
        "plain_ms": round(base / count * 1e3, 3),
        "ms": round(ours / count * 1e3, 3),
        "ratio": round(base / ours, 2),
        "recall_at_10": float((scores >= expected[:, -1:] - 1e-6).float().mean()),
    }


def unchanged(count: int) -> float:
    """CPU seconds to find that a folder of so many indexed files has not changed."""

    def never(files: Any) -> Any:
        raise AssertionError("nothing may be embedded")

    def once(files: Any) -> Any:
        return list(files), functional.normalize(torch.randn(len(files), 512), dim=1), {}

    with tempfile.TemporaryDirectory() as place:
        pictures, index = Path(place, "pictures"), Path(place, "index")
        pictures.mkdir()
        for i in range(count):
            (pictures / f"{i:05d}.jpg").write_bytes(f"picture {i}".encode())
        seconds = 0.0
        for embed in (once, never):
            start = time.process_time()
            with open_or_create(index, "m", "f", 512) as store, Writer(store) as writer:
                *_, tally = update(writer, survey(pictures), embed)
            seconds = time.process_time() - start
    if tally.skipped != count:
        raise SystemExit(f"{tally.skipped} of {count} files were found unchanged")
    return seconds


@torch.no_grad()
def main() -> None:
    """Print the figures as JSON."""
    parser = tool_parser("bench search", __doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=1)
    options, device = arguments(parser)
    torch.set_num_threads(options.threads)
    rows = vectors(options.rows, 512)
    dice = torch.Generator().manual_seed(1)
    near = rows[torch.randint(len(rows), (64,), generator=dice)].float()
    queries = functional.normalize(near + 0.02 * torch.randn(64, 512, generator=dice), dim=1)
    queries, table = device.move(queries), device.move(rows)
    matrix = Matrix.of(rows, device.torch)
    figures = {
        **about(device),
        "torch": torch.__version__,
        "threads": options.threads,
        "rows": len(rows),
        "quick": str(matrix.quick.dtype),
        "64_queries": compare(table, matrix, queries, device),
        "1_query": compare(table, matrix, queries[:1], device),
    }
    if on_cpu(device):
        figures["1000_unchanged_files_s"] = round(unchanged(1000), 3)
    else:
        print(f"search: only a CPU reads folders; left out on {device.name}", file=sys.stderr)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
