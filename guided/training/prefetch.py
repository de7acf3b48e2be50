"""Batches prepared in another thread while the model works."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor


class Prefetcher:
    """Gives ``make(position)`` for successive positions, prepared up to ``depth`` ahead.

    ``make`` is a pure function of the position, so what was prepared in vain (after a jump) is
    dropped without harm.  With depth 0 everything happens in the calling thread.
    """

    def __init__(self, make: Callable[[int], Any], depth: int) -> None:
        self._make = make
        self._depth = depth
        self._waiting: dict[int, Future[Any]] = {}
        self._thread = ThreadPoolExecutor(1, "batches", initializer=torch.set_num_threads,
                                          initargs=(1,)) if depth else None  # fmt: skip

    def get(self, position: int, stop: Callable[[], bool] = lambda: False) -> Any:
        """The batch of a position; what ``make`` raised is raised here.

        None where ``stop`` says so before the batch is there.
        """
        if self._thread is None:
            return self._make(position)
        for stale in [p for p in self._waiting if not position <= p <= position + self._depth]:
            self._waiting.pop(stale).cancel()
        for wanted in range(position, position + self._depth + 1):
            if wanted not in self._waiting:
                self._waiting[wanted] = self._thread.submit(self._make, wanted)
        batch = self._waiting.pop(position)
        while not (done := wait([batch], timeout=0.1).done) and not stop():
            pass
        return batch.result() if done else None

    def close(self, *, wait: bool = True) -> None:
        """End the thread; with ``wait`` a batch in the making is finished first."""
        if self._thread is not None:
            self._thread.shutdown(wait=wait, cancel_futures=True)
        self._waiting.clear()


def to_device(value: Any, device: torch.device) -> Any:
    """The same nest of tuples, lists, dicts and dataclasses with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(to_device(item, device) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        moved = {f.name: to_device(getattr(value, f.name), device)
                 for f in dataclasses.fields(value) if f.init}  # fmt: skip
        return dataclasses.replace(value, **moved)
    return value
