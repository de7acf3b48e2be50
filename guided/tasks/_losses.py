"""[[loss]] tables of a recipe: a kind, a weight, and the loss's own keys."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

import guided.losses
from guided.errors import RecipeError, nearest

if TYPE_CHECKING:
    from guided.core.objective import Loss, Objective


def loss_kinds() -> list[str]:
    """The losses there are, found as files without importing them."""
    found = (module.name for module in pkgutil.iter_modules(guided.losses.__path__))
    return sorted(name for name in found if not name.startswith("_"))


class LossTable(BaseModel):
    """One [[loss]]: its ``kind``, its ``weight``, and further keys that the kind defines."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    weight: float = Field(1.0, allow_inf_nan=False)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in loss_kinds():
            raise ValueError(f"there is no loss {kind!r}. {nearest(kind, loss_kinds())}")
        return kind


def objective_of(tables: Sequence[LossTable]) -> Objective:
    """The weighted sum the tables describe.

    Raises:
        RecipeError: a key the kind does not have, or a value of the wrong type.
    """
    from guided.core.objective import Objective

    return Objective.of(*(table.weight * _loss(table) for table in tables))


def _loss(table: LossTable) -> Loss:
    kind = _class_of(table.kind)
    given: dict[str, Any] = dict(table.model_extra or {})
    allowed = [field.name for field in fields(kind)]
    for key in given:
        if key not in allowed:
            raise RecipeError(
                f"The loss {table.kind!r} has no key {key!r}.", hint=nearest(key, allowed)
            )
    try:
        loss: Loss = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"The loss {table.kind!r}: {place}: {first['msg']}.") from error
    return loss


def _class_of(kind: str) -> type[Loss]:
    module = importlib.import_module(f"guided.losses.{kind}")
    name = "".join(part[:1].upper() + part[1:] for part in kind.split("_"))
    found: type[Loss] = getattr(module, name)
    return found
