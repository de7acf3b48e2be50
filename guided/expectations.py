"""Conditions of success: the ``[expect]`` table of a recipe, judged after the run.

A key is a score's name or a dotted path into the answer (``count``, ``results.0.label``; ``*``
stands for every entry).  A value is what it must equal, or a table of bounds::

    [expect]
    count = 16
    "results.*.probabilities.hat" = { at_least = 0.5 }
    attributes = { hair_color = "pink" }   # what the reader must see in every picture made
    share = 0.75                           # ... or in this share of them

The reader is a judge: it was never optimised by what it judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guided.core.run import Result
from guided.errors import RecipeError, nearest

if TYPE_CHECKING:
    from PIL import Image

#: Reads attribute values off pictures: one table of values each.
Read = Callable[[Sequence["Image.Image"]], list[Mapping[str, Any]]]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(found: Any, wanted: Any) -> bool:
    if _number(found) and _number(wanted):
        return math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-9)
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)


_RULES: dict[str, Callable[[Any, Any], bool]] = {
    "equals": _equal,
    "at_least": lambda found, wanted: _number(found) and found >= wanted,
    "at_most": lambda found, wanted: _number(found) and found <= wanted,
    "one_of": lambda found, wanted: any(_equal(found, item) for item in wanted),
    "contains": lambda found, wanted: isinstance(found, (str, list, dict)) and wanted in found,
}


def check(expect: Mapping[str, Any], source: str = "recipe") -> None:
    """Accept an ``[expect]`` table, or say what is wrong with it.

    Raises:
        RecipeError: a bound that does not exist, or whose value has the wrong type.
    """
    for key, wanted in expect.items():
        if key == "share":
            if not _number(wanted) or not 0 < wanted <= 1:
                raise RecipeError(f"{source}: expect.share = {wanted!r}: must be in (0, 1].")
        elif key == "attributes":
            if not isinstance(wanted, Mapping):
                raise RecipeError(f"{source}: expect.attributes must be a table of values.")
        elif isinstance(wanted, Mapping):
            for rule, bound in wanted.items():
                _check_rule(key, rule, bound, source)


def _check_rule(key: str, rule: str, bound: Any, source: str) -> None:
    if rule not in _RULES:
        raise RecipeError(
            f"{source}: expect.{key}: there is no condition {rule!r}.", hint=nearest(rule, _RULES)
        )
    if rule in ("at_least", "at_most") and not _number(bound):
        raise RecipeError(f"{source}: expect.{key}.{rule} = {bound!r}: must be a number.")
    if rule == "one_of" and not isinstance(bound, list):
        raise RecipeError(f"{source}: expect.{key}.one_of = {bound!r}: must be a list.")


def _at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Every value at a dotted path; nothing where the path ends in the void."""
    if not path:
        yield value
    elif isinstance(value, list):
        for part in value if path[0] == "*" else _item(value, path[0]):
            yield from _at(part, path[1:])
    elif isinstance(value, Mapping):
        if path[0] == "*":
            for part in value.values():
                yield from _at(part, path[1:])
            return
        for end in range(len(path), 0, -1):  # keys may hold dots themselves
            name = ".".join(path[:end])
            if name in value:
                yield from _at(value[name], path[end:])
                return


def _item(items: Sequence[Any], position: str) -> Sequence[Any]:
    return items[int(position) : int(position) + 1] if position.isdigit() else ()


def _values(result: Result, key: str) -> list[Any]:
    if key in result.scores:
        return [result.scores[key]]
    return list(_at(result.answer, key.split(".")))


def _attributes_miss(expect: Mapping[str, Any], result: Result, read: Read) -> Iterator[str]:
    wanted, share = expect["attributes"], expect.get("share", 1.0)
    seen = read(result.images) if result.pictures else []
    met = [all(one.get(key) == value for key, value in wanted.items()) for one in seen]
    found = sum(met) / len(met) if met else 0.0
    if found < share:
        said = ", ".join(f"{key} = {value}" for key, value in wanted.items())
        yield f"{said}: the reader sees it in {sum(met)} of {len(met)} pictures, not {share:.0%}"


def failed(expect: Mapping[str, Any], result: Result, read: Read) -> list[str]:
    """The conditions a result does not meet, each in a readable line; empty is success."""
    missed: list[str] = []
    for key, wanted in expect.items():
        if key == "share":
            continue
        if key == "attributes":
            missed += _attributes_miss(expect, result, read)
            continue
        found = _values(result, key)
        if not found:
            missed.append(f"{key}: the run has no such score or answer")
        rules = wanted if isinstance(wanted, Mapping) else {"equals": wanted}
        missed += [
            f"{key} is {value!r}, not {rule.replace('_', ' ')} {bound!r}"
            for value in found
            for rule, bound in rules.items()
            if not _RULES[rule](value, bound)
        ]
    return missed
