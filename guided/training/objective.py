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
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from guided.errors import CannotDo
from guided.training.data_identity import files_digest, files_of

BatchT = TypeVar("BatchT")
Parts = Mapping[str, Tensor]
#: The licence of weights that this project's own data made.
LICENCE = "Apache-2.0"


#: Keys of settings by their old names, which recipes may go on using.
RENAMED = {
    "frozen": "frozen_precision", "unsaid": "text_dropout", "unseen": "image_dropout",
    "apart": "image_only", "cap": "min_snr_gamma", "facts": "attribute_loss", "words": "sign_loss",
}  # fmt: skip


class ObjectiveSettings(BaseModel):
    """The keys of an objective's own table ``[settings]``; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Keys of a world's terms, which a recipe for a folder may set to 0.
    absent: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        fields, table = cls.model_fields, dict(table)
        for old, new in RENAMED.items():
            if old in table and new in fields and old not in fields:
                if new in table:
                    raise ValueError(f"{old} is the old name of {new}; give one of them")
                table[new] = table.pop(old)
        absent = cls.absent - set(cls.model_fields)
        wanted = sorted(key for key in absent & set(table) if table[key])
        if wanted:
            raise ValueError(
                f"{wanted[0]} = {table[wanted[0]]} needs to know more of images than their "
                "captions, as a world does; set it to 0"
            )
        return {key: value for key, value in table.items() if key not in absent}


@dataclass(frozen=True)
class TrainingContext:
    """What an objective is given besides its settings: the seed, the data folder, the device.

    ``data`` is the folder of a user's own data, or None for a world's; ``pools`` is where a world's
    images and frozen features are kept; ``device`` is where the loop will put the model;
    ``resident`` asks to keep the images in that device's memory; ``start`` are the weights that a
    fresh training starts from; ``encoding`` is that of captions which are not UTF-8.
    """

    seed: int = 0
    data: Path | None = None
    pools: Path = Path("outputs/pools")
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    resident: bool = False
    start: Path | None = None
    encoding: str = ""


@dataclass(frozen=True)
class BatchContext:
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
    names, ``weights`` is that file's name, ``licence`` that of the weights, ``files`` are further
    files by name (a tokenizer, a configuration).
    """

    role: str
    kind: str
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    notes: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] | None = None
    weights: str = "model.safetensors"
    licence: str = LICENCE
    files: Mapping[str, bytes] = field(default_factory=dict)


class TrainingObjective(ABC, Generic[BatchT]):
    """One thing to train; lives in ``guided/training/objectives/<name>.py`` under that name.

    The loop calls ``build`` once, then for each position ``batch`` (in a background thread, one or
    two positions ahead) and ``loss``, now and then ``monitor``, and ``product`` at the end.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    #: What it learns from, in words, when that cannot be a folder of the user's.
    own_data: ClassVar[str] = ""

    def __init__(self, settings: Any, ctx: TrainingContext) -> None:
        """Raises ``CannotDo`` when a data folder is given and this objective takes none."""
        if self.own_data and ctx.data is not None:
            raise CannotDo(
                f"The objective {self.name!r} learns from {self.own_data} and takes no data "
                f"folder; given: {ctx.data}.",
                hint="Leave --data out.",
            )
        self.settings = settings
        self.ctx = ctx

    @abstractmethod
    def build(self) -> nn.Module:
        """The module to train, float32 on the CPU, its weights a function of ``ctx.seed``.

        The loop has seeded torch's own generator, so plain constructors may be used.  Everything
        trained must be a parameter of this one module (wrap several in an ``nn.ModuleDict``).
        """

    @abstractmethod
    def batch(self, share: BatchContext) -> BatchT:
        """This process's rows of the batch at ``share.position``, on the CPU or on the device.

        Runs in another thread: draw from ``share.generator(...)`` only, never from torch's global
        generator.  Must be a pure function of ``share``.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: BatchT, share: BatchContext) -> tuple[Tensor, Parts]:
        """The scalar to minimise (a mean over this process's rows) and named parts for the log.

        Called under autocast when the recipe's precision is bf16: bring logits to float32 before a
        softmax.  ``model`` is in training mode and may be wrapped (call it, do not reach inside;
        use ``self.inside(model)`` for attributes).  The global generator is seeded from the
        position, so dropout is repeatable.
        """

    def data_digest(self) -> str:
        """The identity of the user's data, by content; "" without any.  Here: of all its files.

        Raises:
            UsageError: there is no such folder, or a file of it cannot be read.
        """
        folder = self.ctx.data
        return "" if folder is None else files_digest(folder, files_of(folder))

    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Figures of the exponential average (evaluation mode, float32) on data of its own.

        Never asks a judge: judges neither select nor stop anything.
        """
        return {}

    def product(self, model: nn.Module) -> Product:
        """What goes on the card; ``model`` is the exponential average as it will be shipped."""
        return Product(role=self.name, kind=self.name)

    def card_figures(self, model: nn.Module) -> Mapping[str, Metric]:
        """The card's figures of shipped weights put back by ``restore``, measured again."""
        return self.product(model).metrics

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
