"""[[loss]] tables of a recipe: a kind, a weight, and the loss's own keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from guided.core.loss_registry import ALIASES, LOSSES, declared
from guided.core.plugins import CLASS
from guided.errors import CannotDo, RecipeError, UsageError, nearest

if TYPE_CHECKING:
    from guided.core.objective import Loss, Objective

#: What loops over images offer, and the roles whose models every such loop can load.
IMAGE_LOOP, IMAGE_ROLES = ("image", "latent"), ("identity", "perceptual", "scorer")
#: The same of the loop over text, which makes its continuations itself.
TEXT_LOOP, TEXT_ROLES = ("text",), ("continuations",)
logger = logging.getLogger(__name__)
_OBJECT = re.compile(r"<object \d+: .+>")
_objects: dict[str, Any] = {}


class LossTable(BaseModel):
    """One [[loss]]: its ``kind``, its ``weight``, and further keys that the kind defines."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    weight: float = Field(1.0, allow_inf_nan=False)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind in ALIASES:
            logger.warning("The loss %s is called %s now.", kind, ALIASES[kind])
            kind = ALIASES[kind]
        if not CLASS.fullmatch(kind) and kind not in LOSSES.names():
            raise ValueError(f"there is no loss {kind!r}. {nearest(kind, LOSSES.names())}")
        return kind


def table_of(loss: Loss, weight: float = 1.0) -> dict[str, Any]:
    """The plain data of the [[loss]] that stands for a loss; it finds the loss in this process.

    A field that is no text, number or list of them (a model, say) is named, and kept until the
    process ends.
    """
    kind = LOSSES.name_of(type(loss))
    own = {}
    for each in fields(loss):
        value = _plain(getattr(loss, each.name))
        if value is None and isinstance(each.default, str):
            value = ""
        if value is not None or each.default is MISSING:
            own[each.name] = value
    return {"kind": kind, **own, "weight": weight}


def objective_of(tables: Sequence[LossTable]) -> Objective:
    """The weighted sum the tables describe.

    Raises:
        RecipeError: a key the kind does not have, a value of the wrong type, or a "module:Class"
            that is not to be found.
    """
    from guided.core.objective import Objective

    return Objective.of(*(table.weight * _loss(table) for table in tables))


def loss_roles(tables: Sequence[LossTable]) -> tuple[str, ...]:
    """The roles of the models that the tables' losses need; no "module:Class" is imported for it.

    That of one which is not loaded yet is found out by the run.
    """
    kinds = (table.kind for table in tables if LOSSES.is_at_hand(table.kind))
    return tuple(dict.fromkeys(role for kind in kinds for role in declared(kind).needs))


def check_losses(
    tables: Sequence[LossTable],
    modalities: Sequence[str] = IMAGE_LOOP,
    roles: Sequence[str] = IMAGE_ROLES,
) -> None:
    """Check that a loop offers what the losses look at, and models in the roles they need.

    Raises:
        UsageError: a loss for another kind of loop; what is allowed is named.
        CannotDo: a loss that needs a model in a role that the loop cannot fill.
        RecipeError: a "module:Class" that is not to be found.
    """
    for kind in dict.fromkeys(table.kind for table in tables):
        own = declared(kind)
        if own.modality not in modalities:
            fit = [k for k in LOSSES.names() if declared(k).modality in modalities]
            raise UsageError(
                f"The loss {kind!r} looks at {own.modality}, "
                f"but this loop offers {' and '.join(modalities)}.",
                hint=f"Losses for it: {', '.join(fit)}.",
            )
        for role in own.needs:
            if role not in roles:
                raise CannotDo(
                    f"The loss {kind!r} needs a model in the role {role!r}; "
                    f"this loop has models for: {', '.join(roles)}.",
                    hint="A loss can also load a model of its own, in bind.",
                )


def _loss(table: LossTable) -> Loss:
    kind = LOSSES.load(table.kind)
    given: dict[str, Any] = dict(table.model_extra or {})
    allowed = [field.name for field in fields(kind)]
    for key in given:
        if key not in allowed:
            raise RecipeError(
                f"The loss {table.kind!r} has no key {key!r}.", hint=nearest(key, allowed)
            )
    if any(isinstance(value, str) and _OBJECT.fullmatch(value) for value in given.values()):
        own: Loss = kind(**{key: _object(table.kind, key, value) for key, value in given.items()})
        return own
    try:
        loss: Loss = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"The loss {table.kind!r}: {key}: {first['msg']}.") from error
    return loss


def _object(kind: str, key: str, value: Any) -> Any:
    """A field's value, where a name stands for an object that object."""
    if isinstance(value, str) and _OBJECT.fullmatch(value):
        if value not in _objects:
            raise RecipeError(
                f"The loss {kind!r} was given {key} = {value} in another process; "
                "no recipe can keep that.",
                hint=f"Run it again from Python, with a {kind.rpartition(':')[2]}(...) of yours.",
            )
        return _objects[value]
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)) and not any(_is_object(item) for item in value):
        return [_plain(item) for item in value]
    name = next((name for name, known in _objects.items() if known is value), None)
    if name is None:
        kind = type(value)
        name = f"<object {len(_objects) + 1}: {kind.__module__}.{kind.__qualname__}>"
        _objects[name] = value
    return name


def _is_object(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_is_object(item) for item in value)
    return not isinstance(value, (bool, int, float, str, Path))
