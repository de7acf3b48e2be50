"""Command line options made of a verb's Options: their names are the recipe's keys."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from guided.core import toml
from guided.tasks.base import TaskOptions


class TomlValue(click.ParamType[Any]):
    """A value that may be a number or a word: read as TOML reads it."""

    name = "value"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The parsed value."""
        return toml.parse_value(value) if isinstance(value, str) else value


def _bare(annotation: Any) -> Any:
    """The type without ``| None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return parts[0] if len(parts) == 1 else annotation
    return annotation


def _item(annotation: Any) -> tuple[Any, bool]:
    """The type of one word, and whether many are taken."""
    bare = _bare(annotation)
    if get_origin(bare) in (list, tuple):
        return _bare(get_args(bare)[0]), True
    return bare, False


def _kind(annotation: Any) -> click.ParamType[Any]:
    """The click type of one word."""
    if get_origin(annotation) is Literal and all(isinstance(a, str) for a in get_args(annotation)):
        return click.Choice(list(get_args(annotation)))
    simple: dict[Any, click.ParamType[Any]] = {
        int: click.INT, float: click.FLOAT, str: click.STRING, Path: click.STRING,
    }  # fmt: skip
    return simple.get(annotation, TomlValue())


def _extra(field: FieldInfo, key: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(key, "") if isinstance(extra, Mapping) else ""


def _default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=False)
    if field.is_required() or default in (None, PydanticUndefined, "", [], ()) or default is False:
        return ""
    if isinstance(default, (list, tuple)):
        default = ", ".join(map(str, default))
    return f" [default: {default}]"


def _argument(name: str, field: FieldInfo) -> click.Parameter:
    item, many = _item(field.annotation)
    required = field.is_required()
    shown = _extra(field, "name") or name.rstrip("s" if many else "")
    return click.Argument(
        [name],
        type=_kind(item),
        nargs=-1 if many else 1,
        required=required,
        metavar=f"{shown.upper()}{'...' if many else ''}" if required else f"[{shown.upper()}]",
    )


def _option(name: str, field: FieldInfo) -> click.Parameter:
    item, many = _item(field.annotation)
    flag = (_extra(field, "name") or name).replace("_", "-")
    about = f"{(field.description or '').rstrip('.')}{_default_text(field)}"
    required = field.is_required()
    if item is bool and not many:
        return click.Option([f"--{flag}/--no-{flag}", name], default=None, help=about)
    return click.Option(
        [f"--{flag}", name],
        type=_kind(item),
        multiple=many,
        default=None,
        required=required,
        help=f"{about}{' (may be repeated)' if many else ''}",
    )


def parameters(options: type[TaskOptions]) -> list[click.Parameter]:
    """The arguments and options of a verb; keys that only recipes give are left out."""
    made: list[click.Parameter] = []
    for name, field in options.model_fields.items():
        cli = _extra(field, "cli")
        if cli == "argument":
            made.append(_argument(name, field))
        elif cli != "none":
            made.append(_option(name, field))
    return made


def given(options: type[TaskOptions], values: Mapping[str, Any]) -> dict[str, Any]:
    """What was said on the command line, as recipe data; what was left out is absent."""
    said: dict[str, Any] = {}
    for name in options.model_fields:
        value = values.get(name)
        if value is None or value == ():
            continue
        said[name] = list(value) if isinstance(value, tuple) else value
    return said


def common_parameters() -> list[click.Option]:
    """The options of every verb."""
    return [
        click.Option(["--seed"], type=int, default=None, help="first seed [default: 0]"),
        click.Option(["--device"], default=None, help="cpu, cuda, mps ... [default: the best]"),
        click.Option(["--kit"], default=None, help="table of models [default: portraits]"),
        click.Option(["--out"], default=None, metavar="DIR", help="folder to write into"),
        click.Option(["--online"], is_flag=True, default=None, help="allow downloads of models"),
        *set_parameter(),
        click.Option(["--print-recipe"], is_flag=True, help="print the recipe and do nothing"),
        *watching_parameters(),
    ]


def set_parameter() -> list[click.Option]:
    """``--set key=value``, repeated."""
    about = "set a recipe's key, also table.key=value (may be repeated)"
    return [click.Option(["--set", "overrides"], multiple=True, metavar="KEY=VALUE", help=about)]


def watching_parameters() -> list[click.Option]:
    """How a run is shown: ``--json``, ``--quiet``, ``--debug``."""
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="print one JSON object"),
        click.Option(["--quiet"], is_flag=True, help="show no progress"),
        click.Option(["--debug"], is_flag=True, help="show where a failure happened"),
    ]


COMMON_KEYS = ("seed", "device", "kit", "out", "online")
