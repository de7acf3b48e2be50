"""The processes that train together, their device, and what they must agree on."""

from __future__ import annotations

import atexit
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from guided.core import unfinished
from guided.core.device import Device
from guided.errors import CannotDo


class DistributedGroup:
    """This process among those that train together, through accelerate.

    One process alone trains on the very device it was given; several have accelerate deal them out.
    (Accelerate keeps the first device of an interpreter for all its trainings and knows no index.)

    Raises:
        CannotDo: another number of processes is running than the recipe asks for.
    """

    def __init__(
        self, processes: int, device: str | None, tracker: str = "", folder: Path | None = None
    ) -> None:
        picked = Device.pick(device).torch
        alone = processes == 1
        self.accelerator = Accelerator(
            mixed_precision="no",
            cpu=alone or picked.type == "cpu",
            log_with=tracker or None,
            project_dir=folder,
        )
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        own: torch.device = picked if alone else self.accelerator.device
        self.device = torch.device("cpu") if own.type == "cpu" else own  # there is one CPU
        if self.world != processes:
            raise CannotDo(
                f"The recipe asks for {processes} processes and {self.world} are running.",
                hint=f"Start it with torchrun --nproc_per_node {processes}, or set processes.",
            )
        if self.world > 1:
            atexit.register(_leave)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """A module that is on this process's device, its gradients averaged over all processes."""
        wrapped: nn.Module = self.accelerator.prepare_model(model, device_placement=False)
        return wrapped

    def all_reduce_max(self, *numbers: float) -> list[float]:
        """Each number's largest value over all processes, so that all take the same decision."""
        if self.world == 1:
            return list(numbers)
        mine = torch.tensor([numbers], dtype=torch.float32, device=self.device)
        everyone: Any = self.accelerator.gather(mine)
        return [float(number) for number in everyone.amax(0)]

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()


def _leave() -> None:
    """Close the connections while the interpreter still stands: their threads abort it after."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class StopSignal:
    """Within ``with``, the first SIGTERM or SIGINT is noted in ``asked`` instead of obeyed.

    Signals reach the main thread only; in another thread nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        unfinished.signalled(number)
        signal.signal(number, self._before[number])  # a second one is obeyed
