"""Options of verbs with several methods: a table for the keys of each, under its name.

A method is a class whose fields are its options: a file of this package, an entry point, or a
user's "module:Class".  A key of the chosen method may also stand alone, as command lines have it;
an option of another method is refused by name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from guided.core.plugins import CLASS, Registry
from guided.errors import RecipeError, nearest
from guided.tasks.base import TaskOptions, recipe_only

logger = logging.getLogger(__name__)

#: The method that stands for one of several.
AUTO = "auto"


class MethodOptions(TaskOptions):
    """Options with a ``method`` of a ``registry``; what is extra are tables of others' methods.

    ``renamed`` are the names that methods had, ``choice`` those that ``auto`` stands for.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]]

    registry: ClassVar[Registry]
    renamed: ClassVar[Mapping[str, str]] = {}
    choice: ClassVar[Sequence[str]] = ()
    usual: ClassVar[str] = AUTO

    @property
    def chosen(self) -> Any:
        """The method with its options; its module is imported where it is another package's.

        Raises:
            RecipeError: an option that the method does not have, or a module that is not there.
        """
        name: str = getattr(self, "method")  # noqa: B009
        table = getattr(self, table_of(name), None)
        return table if isinstance(table, BaseModel) else built(self.registry, name, table or {})

    @classmethod
    def expanded(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """A method that was handed over as an object (or a class), by name and as a table."""
        method = data.get("method")
        method = method() if isinstance(method, type) else method
        if not isinstance(method, BaseModel):
            return data
        name = cls.registry.name_of(type(method))
        return {**data, "method": name, table_of(name): method.model_dump(mode="json")}

    @model_validator(mode="before")
    @classmethod
    def _into_tables(cls, given: Any) -> Any:
        """Keys of the method that stand outside of its table are put into it."""
        if not isinstance(given, Mapping) or not isinstance(given.get("method", ""), str):
            return given
        data = {key: value for key, value in given.items() if value is not None}
        old = _was(cls.model_fields["method"])
        if old and old in data:
            data.setdefault("method", data.pop(old))
            logger.warning("The option %s is called method now.", old)
        method = data["method"] = cls._known(data.get("method", cls.usual))
        own = [table_of(name) for name in cls.registry.files()]
        for key in own:
            if key.replace("_", "-") in data:
                data[key] = data.pop(key.replace("_", "-"))
        tables: dict[str, dict[str, Any]] = {}
        for name in cls.choice if method == AUTO else (method,):
            table = data.get(table_of(name))
            is_table = isinstance(table, (Mapping, BaseModel))
            tables[name] = dict(data.pop(table_of(name))) if is_table else {}
        shared = cls.model_fields.keys() - own
        olds = {key for key, each in _keys(cls.registry).items() if key in map(_was, each.values())}
        spelled = {*olds, *filter(None, [old])}
        whole = bool(spelled) and spelled <= given.keys()  # 0.1.0 kept every method's defaults
        for key in sorted(data.keys() - shared, key=lambda key: (key in olds, key)):
            if isinstance(data[key], (Mapping, BaseModel)):
                cls._refuse_table(key, data.pop(key), method)
                continue
            used = _placed(cls.registry, key, data[key], tables, whole=whole)
            if used or key in _keys(cls.registry):
                del data[key]
        if method not in (AUTO, *cls.registry.files()) and cls.registry.is_at_hand(method):
            tables[method] = built(cls.registry, method, tables[method]).model_dump(mode="json")
        return data | {table_of(n): table for n, table in tables.items() if table or method != AUTO}

    @classmethod
    def _known(cls, name: str) -> str:
        """The method of a name.

        Raises:
            RecipeError: there is none.
        """
        if name in cls.renamed:
            logger.warning("The method %s is called %s now.", name, cls.renamed[name])
        name = cls.renamed.get(name, name)
        known = [*([AUTO] if cls.choice else []), *cls.registry.names()]
        if name not in known and not CLASS.fullmatch(name):
            raise RecipeError(
                f"There is no {cls.registry.what} {name!r} to take as the method.",
                hint=nearest(name, known),
            )
        return name

    @classmethod
    def _refuse_table(cls, key: str, table: Any, method: str) -> None:
        """Refuse a table that is not the method's own.

        Raises:
            RecipeError: it says anything.
        """
        known = {table_of(name): name for name in cls.registry.names()}
        if key not in known:
            raise RecipeError(f"unknown key {key!r}. {nearest(key, {*cls.model_fields, *known})}")
        if dict(table):
            raise RecipeError(
                f"[{key}] is the table of the method {known[key]}, not of {method}.",
                hint=f'Leave it out, or say method = "{known[key]}".',
            )


def with_tables(base: type[MethodOptions]) -> Any:
    """The class of options with a field for the table of each of this package's methods."""
    registry = base.registry
    kinds = {name: registry.load(name) for name in registry.files()}
    fields: dict[str, Any] = {
        table_of(name): (kind | None, recipe_only(f"options of the method {name}", None))
        for name, kind in kinds.items()
    }
    return create_model("Options", __base__=base, **fields)


def table_of(method: str) -> str:
    """The key of a method's table: its name, or the name of a user's class in small letters."""
    return method.rpartition(":")[2].rpartition(".")[2].replace("-", "_").lower()


def built(registry: Registry, method: str, table: Mapping[str, Any]) -> Any:
    """A method of another package with its options.

    Raises:
        RecipeError: an option that it does not have, or a value that does not fit.
    """
    kind = registry.load(method)
    try:
        return kind.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        unknown = first["type"] == "extra_forbidden"
        raise RecipeError(
            f"The method {method!r}: {key}: {'unknown key' if unknown else first['msg']}.",
            hint=nearest(key, kind.model_fields) if unknown else "",
        ) from error


def _fields(registry: Registry, method: str) -> Mapping[str, FieldInfo]:
    """The keys of a method; none of one whose module is not to be imported yet."""
    if not registry.is_at_hand(method):
        return {}
    fields: Mapping[str, FieldInfo] = registry.load(method).model_fields
    return fields


def _was(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("was", "")) if isinstance(extra, Mapping) else ""


def _keys(registry: Registry) -> dict[str, dict[str, FieldInfo]]:
    """The keys of this package's methods, old spellings included: for each its methods."""
    keys: dict[str, dict[str, FieldInfo]] = {}
    for method in registry.files():
        for name, field in _fields(registry, method).items():
            for spelling in filter(None, (name, _was(field))):
                keys.setdefault(spelling, {})[method] = field
    return keys


def _placed(
    registry: Registry, key: str, value: Any, tables: dict[str, dict[str, Any]], *, whole: bool
) -> bool:
    """Put a key that stands alone into the tables of the methods that have it.

    A ``whole`` recipe of 0.1.0 names the defaults of all methods, which say nothing.

    Raises:
        RecipeError: only other methods have it.
    """
    placed = False
    for method, table in tables.items():
        fields = _fields(registry, method)
        for name, field in fields.items():
            if key in (name, _was(field)):
                table[name], placed = value, True
    owners = _keys(registry).get(key, {})
    usual = whole and any(value == field.get_default() for field in owners.values())
    if not placed and owners and not usual:
        names, option = ", ".join(tables), key.replace("_", "-")
        allowed = ", ".join(k.replace("_", "-") for n in tables for k in _fields(registry, n))
        raise RecipeError(
            f"--{option} is an option of the method {', '.join(owners)}, not of {names}.",
            hint=f"Leave it out, or take that method. Options of {names}: {allowed}.",
        )
    return placed
