"""What can be trained: an Objective says what is built, shown, minimised, watched and shipped.

Everything random in a training is a function of (seed, position, row), never of what ran before,
so that a resumed run repeats an uninterrupted one bit for bit and several processes see the rows
of one batch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from guided.errors import CannotDo

BatchT = TypeVar("BatchT")
Parts = Mapping[str, Tensor]


class ObjectiveSettings(BaseModel):
    """The keys of an objective's own table ``[settings]``; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Surroundings:
    """What an objective is given besides its settings: the seed, the data folder, the device.

    ``data`` is the folder of a user's own data, or None for the drawn world; ``pools`` is where
    drawn pictures are kept; ``device`` is where the loop will put the model; ``resident`` asks to
    keep the pictures in that device's memory.
    """

    seed: int = 0
    data: Path | None = None
    pools: Path = Path("outputs/pools")
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    resident: bool = False


@dataclass(frozen=True)
class Share:
    """One process's share of one batch.

    ``position`` counts batches from 0; ``size`` is the whole batch over all processes, of which
    this process takes the rows ``rows``.
    """

    seed: int
    position: int
    size: int
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def rows(self) -> slice:
        """The rows of the whole batch that are this process's."""
        each = self.size // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    @property
    def count(self) -> int:
        """How many rows are this process's."""
        return self.size // self.world

    def number(self, name: str) -> int:
        """A 63-bit number that depends on the seed, the position and a name."""
        digest = hashlib.sha256(f"{self.seed}:{self.position}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "little") & (2**63 - 1)

    def generator(self, name: str, device: torch.device | None = None) -> torch.Generator:
        """A fresh random stream of this batch and this name, the same in every process.

        Draw for the whole batch and keep ``rows`` where several processes must equal one.
        """
        return torch.Generator(device or "cpu").manual_seed(self.number(name))


@dataclass(frozen=True)
class Metric:
    """A measured value with what a trivial answer (floor) and a perfect one (ceiling) would get."""

    value: float
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Product:
    """What a training ships besides the weights: the card's words and figures.

    ``role`` is the place in a kit ("reader", "scorer", ...), ``kind`` the architecture's name,
    ``tensors`` replaces the exponential average's own state dict where a shipped file has other
    names, ``weights`` is that file's name, ``files`` are further files by name (a tokenizer, a
    configuration).
    """

    role: str
    kind: str
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    notes: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] | None = None
    weights: str = "model.safetensors"
    files: Mapping[str, bytes] = field(default_factory=dict)


class Objective(ABC, Generic[BatchT]):
    """One thing to train; lives in ``guided/training/<name>.py`` under that file's name.

    The loop calls ``build`` once, then for each position ``batch`` (in a background thread, one or
    two positions ahead) and ``loss``, now and then ``monitor``, and ``product`` at the end.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    #: What it learns from, in words, when that cannot be a folder of the user's.
    own_data: ClassVar[str] = ""

    def __init__(self, settings: Any, around: Surroundings) -> None:
        """Raises ``CannotDo`` when a data folder is given and this objective takes none."""
        if self.own_data and around.data is not None:
            raise CannotDo(
                f"The objective {self.name!r} learns from {self.own_data} and takes no data "
                f"folder; given: {around.data}.",
                hint="Leave --data out.",
            )
        self.settings = settings
        self.around = around

    @abstractmethod
    def build(self) -> nn.Module:
        """The module to train, float32 on the CPU, its weights a function of ``around.seed``.

        The loop has seeded torch's own generator, so plain constructors may be used.  Everything
        trained must be a parameter of this one module (wrap several in an ``nn.ModuleDict``).
        """

    @abstractmethod
    def batch(self, share: Share) -> BatchT:
        """This process's rows of the batch at ``share.position``, on the CPU or on the device.

        Runs in another thread: draw from ``share.generator(...)`` only, never from torch's global
        generator.  Must be a pure function of ``share``.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: BatchT, share: Share) -> tuple[Tensor, Parts]:
        """The scalar to minimise (a mean over this process's rows) and named parts for the log.

        Called under autocast when the recipe's precision is bf16: bring logits to float32 before a
        softmax.  ``model`` is in training mode and may be wrapped (call it, do not reach inside;
        use ``self.inside(model)`` for attributes).  The global generator is seeded from the
        position, so dropout is repeatable.
        """

    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Figures of the exponential average (evaluation mode, float32) on data of its own.

        Never asks a judge: judges neither select nor stop anything.
        """
        return {}

    def product(self, model: nn.Module) -> Product:
        """What goes on the card; ``model`` is the exponential average as it will be shipped."""
        return Product(role=self.name, kind=self.name)

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put shipped tensors (float32) back into the bare module, for the portable resume.

        Raises:
            RuntimeError: names or shapes that do not fit.
        """
        model.load_state_dict(dict(tensors))

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay applies: by default to matrices and filters, not to vectors."""
        return parameter.ndim > 1

    def hidden(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether Muon moves it, where a recipe asks for it: by default every matrix.

        What comes first or last (an embedding, the layer of the output) is better left to AdamW.
        """
        return parameter.ndim == 2

    def close(self) -> None:
        """Let go of workers and files; called once, however the training ends."""

    @staticmethod
    def inside(model: nn.Module) -> nn.Module:
        """The bare module inside a distributed wrapper."""
        bare = getattr(model, "module", model)
        return bare if isinstance(bare, nn.Module) else model
