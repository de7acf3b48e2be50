"""Everything a training would lose if it were killed, in one place."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from guided.training.ema import EMA
from guided.training.objective import TrainingObjective
from guided.training.optimisers import Optimisers, optimiser_of
from guided.training.settings import TrainingSettings

Row = dict[str, float]


@dataclass
class State:
    """A training between two steps.

    ``step`` counts accepted updates, ``position`` counts batches taken from the data (it also
    passes those that were rolled back), ``seconds`` and ``core_seconds`` are wall and processor
    time so far, ``scale`` shrinks the learning rate after each roll-back.  ``before`` is what the
    weights had already cost that it started from, under the names of a card's fields.
    ``lengthened`` says from what to what its length was changed on the way.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer | Optimisers
    ema: EMA
    batch: int
    step: int = 0
    position: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    scale: float = 1.0
    rollbacks: int = 0
    started_from: str = ""
    before: dict[str, float] = field(default_factory=dict)
    lengthened: list[str] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """Samples the weights have learnt from."""
        return self.step * self.batch

    def pack(self) -> dict[str, Any]:
        """The whole state as tensors and plain values (not copied)."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.ema.state(),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def snapshot(self) -> dict[str, Any]:
        """A copy of the state to come back to."""
        return copy.deepcopy(self.pack())

    def unpack(self, packed: dict[str, Any]) -> None:
        """Take back what ``pack`` or ``snapshot`` gave (which stays untouched)."""
        self.model.load_state_dict(packed["model"])
        self.optimiser.load_state_dict(copy.deepcopy(packed["optimiser"]))
        self.ema.load(packed["average"])
        for name in _PLAIN:
            if name in packed:  # a state of an older release lacks the newest
                setattr(self, name, copy.deepcopy(packed[name]))


_PLAIN = (
    "step", "position", "seconds", "core_seconds", "scale", "rollbacks", "started_from", "before",
    "lengthened", "history",
)  # fmt: skip


def begin(
    objective: TrainingObjective[Any], settings: TrainingSettings, device: torch.device
) -> State:
    """The state before the first step: fresh weights, optimiser and average on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(objective.ctx.seed)
        model = objective.build()
    model = model.to(device).train()
    if device.type != "mps":
        model = model.to(memory_format=torch.channels_last)
    optimiser = optimiser_of(objective, model, settings, device)
    return State(model, optimiser, EMA(model, settings.ema), settings.batch)
