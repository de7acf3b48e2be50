"""TOML: plain data to text that reads back as the same data, and text to data with limits."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guided.core.reading import parse_toml
from guided.core.text import restored, stored
from guided.errors import RecipeError, UsageError

#: The longest text, in characters, and the deepest nesting of tables and lists that is read.
LARGEST = 256 * 1024
DEEPEST = 8

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_WIDEST = 96


def _string(text: str) -> str:
    out = []
    for char in stored(text):
        code = ord(char)
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif code < 32 or code == 127:
            out.append(f"\\u{code:04x}")
        elif 0xD800 <= code <= 0xDFFF:
            raise RecipeError(f"The text {text!r} holds half a character and cannot be written.")
        else:
            out.append(char)
    return f'"{"".join(out)}"'


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def value_text(value: Any) -> str:
    """One value as inline TOML.

    Raises:
        RecipeError: a value that is not text, number, truth, list or table.

    >>> value_text({"a": [1, 2.5, True, "x"]})
    '{ a = [1, 2.5, true, "x"] }'
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(str(name))} = {value_text(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        items = [value_text(item) for item in value]
        line = f"[{', '.join(items)}]"
        if len(line) <= _WIDEST or not items:
            return line
        return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    raise RecipeError(
        f"{value!r} ({type(value).__name__}) cannot be written in TOML.",
        hint="Allowed: text, numbers, true and false, lists and tables.",
    )


def _is_tables(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(item, Mapping) for item in value)
    )


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain: list[str] = []
    tables: list[str] = []
    for name, value in table.items():
        here = (*path, str(name))
        title = ".".join(_key(part) for part in here)
        if isinstance(value, Mapping):
            tables += ["", f"[{title}]", *_lines(value, here)]
        elif _is_tables(value):
            for item in value:
                tables += ["", f"[[{title}]]", *_lines(item, here)]
        else:
            plain.append(f"{_key(str(name))} = {value_text(value)}")
    return plain + tables


def dumps(table: Mapping[str, Any]) -> str:
    """A table as TOML text; ``parse`` gives the same table back.

    So does ``tomllib.loads``, but for names of files that are not UTF-8 (``guided.core.text``).

    Keys keep their order, except that plain values come before tables.

    Raises:
        RecipeError: a value that TOML has no form for (None, bytes, objects).
    """
    return "\n".join(_lines(table, ())).lstrip("\n") + "\n"


def parse(text: str, source: str = "recipe") -> dict[str, Any]:
    """TOML text as plain data, with limits on its size and nesting.

    Raises:
        RecipeError: too long, too deep, or not TOML (with the line).
    """
    if len(text) > LARGEST:
        raise RecipeError(f"{source}: larger than {LARGEST // 1024} KiB, so not a recipe.")
    try:
        data = parse_toml(text, LARGEST, DEEPEST)
    except ValueError as error:
        reason = str(error).rstrip(".")
        kind = "" if reason.startswith("nested too deep") else "not valid TOML: "
        raise RecipeError(f"{source}: {kind}{reason}.") from error
    whole: dict[str, Any] = _restored(data)
    return whole


def _restored(value: Any) -> Any:
    """The same value with the file names in it as the system has them."""
    if isinstance(value, str):
        return restored(value)
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if isinstance(value, dict):
        return {restored(key): _restored(item) for key, item in value.items()}
    return value


def parse_value(text: str) -> Any:
    """A value as TOML reads it; words that are no TOML value are text.

    >>> parse_value("0.5"), parse_value("true"), parse_value("purple hair")
    (0.5, True, 'purple hair')
    """
    if "\n" in text or "\r" in text:
        return text
    try:
        return parse(f"value = {text}")["value"] if text.strip() else text
    except RecipeError:
        return text


def overridden(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The data with ``key=value`` or ``table.key=value`` (``loss.0.weight=2``) put in.

    Raises:
        UsageError: an override without '=', or one that goes through a value that is no table.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(data))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise UsageError(f"--set {override}: there is no value.", hint="Write --set key=value.")
        _put(changed, path.strip().split("."), parse_value(text.strip()), override)
    return changed


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` over it, merged at every depth; neither is altered.

    A table goes into the table of that name, key by key, and everything that it does not name
    stays; any other value takes the place of what was there.  A table whose keys are all positions
    (``{"0": ...}``) changes those entries of a list.

    Raises:
        UsageError: a position that the list does not have.

    >>> merged({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 3}}})
    {'a': {'b': {'c': 3, 'd': 2}}}
    """
    return {**copy.deepcopy(dict(base)), **{k: _over(base, k, v) for k, v in changes.items()}}


def _over(base: Mapping[str, Any], key: str, change: Any) -> Any:
    before = base.get(key)
    if isinstance(change, Mapping) and isinstance(before, Mapping):
        return merged(before, change)
    positions = isinstance(change, Mapping) and change and all(k.isdigit() for k in change)
    if isinstance(before, list) and isinstance(change, Mapping) and positions:
        for name in change:
            _position(before, name, f"{key}.{name}")
        entries = merged({str(i): entry for i, entry in enumerate(before)}, change)
        return [entries[str(i)] for i in range(len(before))]
    return copy.deepcopy(change)


def _put(table: Any, path: Sequence[str], value: Any, override: str) -> None:
    for part in path[:-1]:
        table = _step_into(table, part, override)
    if isinstance(table, list):
        table[_position(table, path[-1], override)] = value
    else:
        table[path[-1]] = value


def _step_into(table: Any, part: str, override: str) -> Any:
    if isinstance(table, list):
        inner = table[_position(table, part, override)]
    else:
        inner = table.setdefault(part, {})
    if not isinstance(inner, (dict, list)):
        raise UsageError(f"--set {override}: {part!r} is not a table.")
    return inner


def _position(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise UsageError(
            f"--set {override}: {part!r} is not a position in a list of {len(items)}.",
            hint="Positions count from 0.",
        )
    return int(part)
