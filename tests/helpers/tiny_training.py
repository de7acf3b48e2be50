"""A small regression to train in the tests, registered as the objective "tiny"."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guided.training.fit import fit
from guided.training.objective import (
    BatchContext,
    Metric,
    ObjectiveSettings,
    Product,
    TrainingObjective,
)

WIDTH = 6


class TinySettings(ObjectiveSettings):
    noise: float = 0.1
    plain: bool = False  # no dropout and no batch statistics: rows do not see each other
    poison: tuple[int, ...] = ()  # positions whose batch is not finite
    fail_monitor: bool = False


class TinyObjective(TrainingObjective[dict[str, Tensor]]):
    name = "tiny"
    Settings = TinySettings
    closed = 0

    def build(self) -> nn.Module:
        middle = (
            [nn.Tanh()] if self.settings.plain else [nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.1)]
        )
        return nn.Sequential(nn.Linear(WIDTH, 8), *middle, nn.Linear(8, 1))

    def batch(self, share: BatchContext) -> dict[str, Tensor]:
        stream = share.generator("rows")
        x = torch.randn(share.size, WIDTH, generator=stream)
        noise = torch.randn(share.size, generator=stream)
        y = x[:, 0] - 2 * x[:, 1].sin() + self.settings.noise * noise
        if share.position in self.settings.poison:
            x = x * float("inf")
        return {"x": x[share.rows], "y": y[share.rows]}

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], share: BatchContext
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        error = model(batch["x"])[:, 0].float() - batch["y"]
        return error.square().mean(), {"worst": error.abs().max()}

    def monitor(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        torch.randn(3)  # must not disturb the training
        stream = torch.Generator().manual_seed(9)
        x = torch.randn(64, WIDTH, generator=stream).to(next(model.parameters()).device)
        with torch.no_grad():
            error = model(x)[:, 0] - (x[:, 0] - 2 * x[:, 1].sin())
        return {"monitor_error": float(error.square().mean())}

    def product(self, model: nn.Module) -> Product:
        value = self.monitor(model)["monitor_error"]
        metrics = {"error": Metric(value, floor=3.0, ceiling=0.0)}
        return Product("toy", "tiny", metrics, settings={"width": WIDTH}, files={"note.txt": b"hi"})

    def close(self) -> None:
        type(self).closed += 1


module = types.ModuleType("guided.training.objectives.tiny")
module.TinyObjective = TinyObjective  # type: ignore[attr-defined]
sys.modules["guided.training.objectives.tiny"] = module


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of 40 steps of 8 samples that saves after every step."""
    return {
        "objective": "tiny", "samples": 320, "batch": 8, "lr": 1e-2, "warmup": 40, "ema": 64,
        "precision": "fp32", "checkpoint_minutes": 0, "report_steps": 4, "monitor_samples": 80,
        "prefetch": 0, "nice": 0, "device": "cpu", "work": str(folder), **changes,
    }  # fmt: skip


def run(table: Mapping[str, Any], stop_after: int | None = None) -> tuple[list[Any], Any]:
    """All Steps and the Result of a training; None when it was left after some Steps."""
    return rest(fit(table), stop_after)


def rest(steps: Any, stop_after: int | None = None) -> tuple[list[Any], Any]:
    """The Steps that are left and the Result."""
    seen: list[Any] = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value
        if stop_after is not None and len(seen) >= stop_after:
            steps.close()
            return seen, None
