"""Picture files decoded in threads, a batch ahead of whoever uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from guided.errors import ImageError


@dataclass
class Pixels:
    """One batch of decoded files: ``rows[i]`` belongs to ``files[i]``; the others are in errors."""

    files: list[Path] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    errors: dict[Path, str] = field(default_factory=dict)


def read_batches(
    files: Sequence[str | Path],
    decode: Callable[[Path], Tensor],
    *,
    batch: int = 32,
    threads: int = 2,
) -> Iterator[Pixels]:
    """Batches of ``batch`` files in the order given, decoded by ``threads`` threads.

    At most two batches are decoded ahead, so memory does not grow with the number of files.
    ``decode`` may raise ImageError: its file then goes to ``errors``.  With ``threads=0`` files
    are decoded by the caller's own thread.
    """
    groups = [
        [Path(file) for file in files[start : start + batch]]
        for start in range(0, len(files), batch)
    ]
    if threads == 0:
        for group in groups:
            yield _gather(group, [partial(decode, path) for path in group])
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        waiting: deque[tuple[list[Path], list[Future[Tensor]]]] = deque()
        for group in groups:
            waiting.append((group, [pool.submit(decode, path) for path in group]))
            if len(waiting) > 2:
                ready, futures = waiting.popleft()
                yield _gather(ready, [future.result for future in futures])
        while waiting:
            ready, futures = waiting.popleft()
            yield _gather(ready, [future.result for future in futures])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _gather(files: list[Path], calls: Sequence[Callable[[], Tensor]]) -> Pixels:
    pixels = Pixels()
    for path, call in zip(files, calls, strict=True):
        try:
            pixels.rows.append(call())
            pixels.files.append(path)
        except ImageError as error:
            pixels.errors[path] = str(error)
    return pixels
