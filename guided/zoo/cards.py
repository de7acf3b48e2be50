"""Model cards: a TOML file beside each weight that says what it is and how good it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from guided.core import toml
from guided.core.files import write_text
from guided.core.reading import parse_toml, read_text
from guided.core.seeds import read_seed, written_seed
from guided.errors import CorruptWeights, RecipeError, nearest

CARD_FILE = "card.toml"
LARGEST = 1 << 20
"""Bytes of a card."""
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}(/[A-Za-z0-9][A-Za-z0-9._-]{0,79})?"
"""A model's name: ``reader``, or two parts such as ``ViT-B-32/laion2b_s34b_b79k``."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Metric(BaseModel):
    """One figure, with what a blind guess and a perfect model would reach."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    value: Finite
    floor: Finite | None = None
    ceiling: Finite | None = None


class Card(BaseModel):
    """What a model is, where it comes from, and how to know that its files are whole.

    ``origin`` is ``trained`` (made by a recipe of this project: recipe, seed, revision, effort,
    grade and metrics are then required), ``public`` (published by others, found by ``source``) or
    ``added`` (put into the user's folder by hand).

    ``file`` is the main weight file, relative to the card's folder; ``companions`` are the other
    files of the model with their sha256 (empty text: not known).  ``size`` is in bytes;
    ``size_about`` is for public files whose exact size is not known.

    ``half`` are large tensors that stay in half precision where the file is packed to int8, and
    ``earlier`` gives the sha256 of the weights that earlier versions shipped under this name.

    ``samples_seen``, ``core_hours`` and ``gpu_minutes`` are those of the training that ended in
    these weights; where it started from other weights, ``samples_before`` and the two others
    named so are what those had cost, all trainings together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=rf"^{NAME}$")
    role: str = Field(min_length=1)
    kind: str = Field(min_length=1)
    file: str
    format: Literal["safetensors", "torch", "nvidia", "npy", "folder"] = "safetensors"
    origin: Literal["trained", "public", "added"] = "trained"
    licence: str = Field(min_length=1)
    sha256: Sha256 | None = None
    size: int | None = Field(None, gt=0)
    size_about: str = ""
    companions: dict[str, Sha256 | Literal[""]] = Field(default_factory=dict)
    half: list[str] = Field(default_factory=list)
    earlier: dict[str, Sha256] = Field(default_factory=dict)
    source: str = ""
    repository: str = ""
    notes: str = ""
    parameters: int | None = Field(None, gt=0)
    recipe: str = ""
    data_seed: int | None = None
    git_revision: str = ""
    samples_seen: int | None = Field(None, ge=0)
    core_hours: float | None = Field(None, ge=0)
    gpu_minutes: float | None = Field(None, ge=0)
    samples_before: int | None = Field(None, ge=0)
    core_hours_before: float | None = Field(None, ge=0)
    gpu_minutes_before: float | None = Field(None, ge=0)
    grade: Literal["cpu", "gpu"] | None = None
    metrics: dict[str, Metric] = Field(default_factory=dict)

    @field_validator("data_seed", mode="before")
    @classmethod
    def _read_seed(cls, value: Any) -> Any:
        try:
            return read_seed(value) if isinstance(value, str) else value
        except RecipeError as error:
            raise ValueError(error.message) from error

    @field_serializer("data_seed")
    def _written_seed(self, value: int | None) -> int | str | None:
        return None if value is None else written_seed(value)

    @field_validator("file")
    @classmethod
    def _plain_file(cls, value: str) -> str:
        return _relative(value)

    @field_validator("companions")
    @classmethod
    def _plain_companions(cls, value: dict[str, str]) -> dict[str, str]:
        return {_relative(name): digest for name, digest in value.items()}

    @model_validator(mode="after")
    def _complete(self) -> Card:
        if self.origin == "public" and not self.source:
            raise ValueError("a public model needs its source")
        if self.origin != "public" and (self.sha256 is None or self.size is None):
            raise ValueError("sha256 and size are needed")
        if self.origin == "trained":
            needed = ("parameters", "recipe", "data_seed", "git_revision", "samples_seen", "grade")
            missing = [key for key in needed if getattr(self, key) in (None, "")]
            if self.core_hours is None and self.gpu_minutes is None:
                missing.append("core_hours or gpu_minutes")
            if not self.metrics:
                missing.append("metrics")
            if missing:
                raise ValueError(f"a trained model also needs {', '.join(missing)}")
        return self

    @property
    def files(self) -> list[str]:
        """The main file and its companions."""
        return [self.file, *self.companions]


def folder_name(name: str) -> str:
    """The folder of a model of that name: a slash becomes two dashes."""
    return name.replace("/", "--")


def _relative(name: str) -> str:
    path = PurePosixPath(name)
    odd = not name or path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", name)
    if odd or str(path) != name or name == CARD_FILE:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def card_from(table: Mapping[str, Any], where: str) -> Card:
    """The card in a TOML table.

    Raises:
        CorruptWeights: an unknown key (with the nearest allowed one), a wrong type or a gap.
    """
    unknown = [key for key in table if key not in Card.model_fields]
    if unknown:
        raise CorruptWeights(
            f"{where} has the unknown key {unknown[0]!r}.",
            hint=nearest(unknown[0], Card.model_fields),
        )
    try:
        return Card.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise CorruptWeights(
            f"{where} is not a model card: {f'{key}: ' if key else ''}{reason}."
        ) from error


def read_card(path: Path) -> Card:
    """The card in a TOML file.

    Raises:
        CorruptWeights: no such file, no TOML, or not a card.
    """
    try:
        return _card_of(read_text(path, LARGEST), str(path))
    except (OSError, ValueError) as error:
        raise CorruptWeights(f"{path} cannot be read as a model card ({error}).") from error


@lru_cache(maxsize=256)
def _card_of(text: str, where: str) -> Card:
    return card_from(parse_toml(text, LARGEST), where)


def write_card(card: Card, path: Path) -> Path:
    """Write a card as TOML, whole or not at all; returns its path.

    Raises:
        OutputError: it cannot be written.
    """
    table = card.model_dump(exclude_none=True, exclude_defaults=True)
    return write_text(path, toml.dumps({"name": card.name, **table}))
