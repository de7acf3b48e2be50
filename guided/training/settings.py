"""The keys of a training recipe; nothing heavy is imported here."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from guided.core.tables import ENCODING_HELP

#: Keys that say how long, where and how fast, not what is trained: they may change at a resume.
FREE_KEYS = frozenset(
    {
        "checkpoint_minutes", "monitor_samples", "report_steps", "nice", "work", "pools", "data",
        "prefetch", "threads", "resident", "tracker", "encoding",
    }
)  # fmt: skip

#: Keys that say when a training ends: it may be lengthened (or cut) where it goes on.
LENGTHS = ("samples", "minutes", "hours")


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


#: Two numbers, also as a list where types are taken strictly.
Pair = Annotated[tuple[float, float], BeforeValidator(_pair)]


def key(help: str, default: Any, **rules: Any) -> Any:
    """A recipe key with its help; the command line reaches it through ``--set``."""
    return Field(default, description=help, json_schema_extra={"cli": "none"}, **rules)


class TrainingSettings(BaseModel):
    """What a training recipe can say besides its seed and device; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: str = key("what is trained, by name: guided list objectives", "")
    name: str = key("name of the trained model; default: the objective's", "")
    settings: dict[str, Any] = key("the objective's own keys", {})

    samples: int | None = key("stop after this many samples", None, gt=0)
    minutes: float | None = key("stop after this long", None, gt=0)
    hours: float | None = key("stop after this long", None, gt=0)

    optimiser: Literal["adamw", "muon"] = key(
        "adamw, or muon for hidden matrices beside adamw", "adamw"
    )
    muon_lr: float = key("learning rate of muon's matrices, times that of the rest", 7.0, gt=0)
    batch: int = key("samples in a step, over all processes", 128, ge=1)
    lr: float = key("highest learning rate", 1e-3, gt=0)
    final_lr: float = key("learning rate at the end, as a share of the highest", 0.0, ge=0, le=1)
    warmup: int = key("samples until the highest learning rate", 10_000, ge=0)
    betas: Pair = key("AdamW's two averages", (0.9, 0.99))
    weight_decay: float = key("AdamW's decay of matrices and filters", 0.05, ge=0)
    clip: float = key("largest gradient norm", 1.0, gt=0)
    ema: int = key("half-life of the exponential average, in samples", 20_000, ge=1)
    precision: Literal["fp32", "bf16"] = key("arithmetic of the forward pass", "bf16")

    monitor_samples: int = key("samples between two looks at the monitor; 0: never", 50_000, ge=0)
    report_steps: int = key("training steps between two reports", 20, ge=1)
    checkpoint_minutes: float = key("minutes between checkpoints", 5.0, ge=0)
    tracker: Literal["", "tensorboard", "wandb"] = key(
        "also report to this tracker, in the training's folder: tensorboard or wandb (offline)", ""
    )
    rollbacks: int = key("how often a non-finite loss may be rolled back", 5, ge=0)

    processes: int = key("processes that train together (started by torchrun)", 1, ge=1)
    threads: int = key("threads of each process; 0: as torch thinks fit", 0, ge=0)
    prefetch: int = key("batches prepared ahead", 2, ge=0, le=8)
    resident: bool = key("keep the pictures in the device's memory", False)
    nice: int = key("how far the process steps back behind others, 0 to 19", 10, ge=0, le=19)

    data: Path | None = key("folder of your own data; default: a world's own", None)
    encoding: str = key(ENCODING_HELP, "")
    start: Path | None = key("weights to start from (portable resume)", None)
    pools: Path = key("where a world's images and frozen features are kept", Path("outputs/pools"))
    work: Path = key("where checkpoints are kept", Path("outputs/training"))

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSettings:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.objective or "x"):
            raise ValueError(f"objective must be a plain lower-case name, not {self.objective!r}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name or "x"):
            raise ValueError(f"name must be letters, digits, '.', '_' or '-', not {self.name!r}")
        if self.batch % self.processes:
            raise ValueError(f"batch {self.batch} does not divide among {self.processes} processes")
        return self

    @property
    def title(self) -> str:
        """The model's name."""
        return self.name or self.objective

    @property
    def seconds(self) -> float | None:
        """The time limit in seconds, the shorter where both are given."""
        limits = [60 * self.minutes] if self.minutes else []
        limits += [3600 * self.hours] if self.hours else []
        return min(limits, default=None)

    @property
    def length(self) -> str:
        """When the training ends, in words."""
        limits = [f"{self.samples:,} samples"] if self.samples else []
        limits += [f"{self.seconds / 60:g} minutes"] if self.seconds else []
        return " or ".join(limits)

    def digest(self, seed: int) -> str:
        """A fingerprint of all that decides the weights but for when they are done."""
        free = {*FREE_KEYS, *LENGTHS}
        table = {k: v for k, v in self.model_dump(mode="json").items() if k not in free}
        text = json.dumps({**table, "seed": seed}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
