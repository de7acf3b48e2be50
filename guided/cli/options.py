"""Command line options made of a verb's Options: their names are the recipe's keys."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from guided.core import toml
from guided.core.precision import CHOICES
from guided.core.seeds import read_seed
from guided.errors import RecipeError
from guided.tasks.base import TaskOptions


class TomlValue(click.ParamType[Any]):
    """A value that may be a number or a word: read as TOML reads it."""

    name = "value"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The parsed value."""
        return toml.parse_value(value) if isinstance(value, str) else value


class SeedValue(click.ParamType[int]):
    """A seed."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """The seed, if it is one."""
        try:
            digits = str(value).strip()
            return read_seed(int(digits) if re.fullmatch(r"-?[0-9]{1,64}", digits) else value)
        except RecipeError as error:
            self.fail(error.message, param, ctx)


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
    """The arguments and options of a verb; keys that only recipes give are left out.

    The keys of tables, one for each method, follow as options that say whose they are.
    """
    made: list[click.Parameter] = []
    for name, field in options.model_fields.items():
        cli = _extra(field, "cli")
        if cli == "argument":
            made.append(_argument(name, field))
        elif cli != "none":
            made.append(_option(name, field))
            if was := _extra(field, "was"):
                made.append(click.Option([f"--{was}", was], hidden=True))
    for name, fields in table_keys(options).items():
        owners = {table: field for table, field in fields.items() if _extra(field, "cli") != "none"}
        if owners:
            made.append(_table_option(name, owners))
    return made


def table_keys(options: type[TaskOptions]) -> dict[str, dict[str, FieldInfo]]:
    """The keys that stand in tables, old spellings included: for each the tables with its field."""
    keys: dict[str, dict[str, FieldInfo]] = {}
    for table, field in options.model_fields.items():
        kind = _bare(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, each in kind.model_fields.items():
                for spelling in filter(None, (name, _extra(each, "was"))):
                    keys.setdefault(spelling, {})[table.replace("_", "-")] = each
    return keys


class TableOption(click.Option):
    """An option that some methods have, by ``tables`` named after them."""

    tables: tuple[str, ...] = ()


def _table_option(name: str, owners: Mapping[str, FieldInfo]) -> click.Option:
    """The option of a key that stands in tables; one by an old spelling is not shown."""
    field = next(iter(owners.values()))
    item, many = _item(field.annotation)
    texts: dict[str, list[str]] = {}
    for table, each in owners.items():
        about = f"{(each.description or '').rstrip('.')}{_default_text(each)}"
        texts.setdefault(about, []).append(table)
    (first, *others) = sorted(texts, key=lambda text: -len(texts[text]))
    more = "".join(f"; {', '.join(texts[text])}: {text}" for text in others)
    made = TableOption(
        [f"--{name.replace('_', '-')}", name], type=_kind(item), multiple=many, default=None,
        help=f"{first}{more}{' (may be repeated)' if many else ''}",
        hidden=any(_extra(each, "was") == name for each in owners.values()),
    )  # fmt: skip
    made.tables = tuple(owners)
    return made


class VerbCommand(click.Command):
    """A verb, whose help groups the options of methods."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of all, then those of each set of methods."""
        groups: dict[tuple[str, ...], list[tuple[str, str]]] = {(): []}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(each, "tables", ()), []).append(record)
        for tables, records in groups.items():
            with formatter.section(f"Options of {', '.join(tables)}" if tables else "Options"):
                formatter.write_dl(records)


def given(options: type[TaskOptions], values: Mapping[str, Any]) -> dict[str, Any]:
    """What was said on the command line, as recipe data; what was left out is absent."""
    said: dict[str, Any] = {}
    old = [_extra(field, "was") for field in options.model_fields.values()]
    for name in (*options.model_fields, *filter(None, old), *table_keys(options)):
        value = values.get(name)
        if value is None or value == ():
            continue
        said[name] = list(value) if isinstance(value, tuple) else value
    return said


def common_parameters() -> list[click.Option]:
    """The options of every verb."""
    return [
        click.Option(["--seed"], type=SeedValue(), default=None, help="first seed [default: 0]"),
        click.Option(["--device"], default=None, help="cpu, cuda, mps ... [default: the best]"),
        *placement_parameters(),
        click.Option(["--kit"], default=None, help="table of models [default: portraits]"),
        click.Option(["--out"], default=None, metavar="DIR", help="folder to write into"),
        force_parameter(),
        click.Option(["--online"], is_flag=True, default=None, help="allow downloads of models"),
        *set_parameter(),
        click.Option(["--print-recipe"], is_flag=True, help="print the recipe and do nothing"),
        *watching_parameters(),
    ]


def placement_parameters() -> list[click.Option]:
    """``--dtype`` and ``--offload``."""
    dtype = (
        "precision of the models that make images and texts; auto is fp32 on a CPU and bf16 (or "
        "fp16) on an accelerator; what compares stays in fp32 [default: auto]"
    )
    offload = (
        "model: on an accelerator each model's weights stay in CPU memory until it computes, so "
        "that large models fit a small GPU [default: none]"
    )
    return [
        click.Option([f"--{name}"], type=click.Choice(CHOICES[name]), default=None, help=about)
        for name, about in (("dtype", dtype), ("offload", offload))
    ]


def force_parameter() -> click.Option:
    """``--force``: files that are in the way are replaced."""
    about = "replace files of the same name in --out; without it new ones get the next free name"
    return click.Option(["--force"], is_flag=True, default=None, help=about)


def trust_parameter() -> click.Option:
    """``--trust``: a recipe that came in a picture may do all it asks for."""
    about = (
        "do what a picture's recipe asks for, also read and write outside its folder, load models "
        "of its own and train; without it you are asked, or it is refused"
    )
    return click.Option(["--trust"], is_flag=True, help=about)


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


COMMON_KEYS = ("seed", "device", "dtype", "offload", "kit", "out", "force", "online")
