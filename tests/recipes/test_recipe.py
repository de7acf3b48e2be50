"""Recipes are strict, readable when wrong, and come back from TOML as they went in."""

from __future__ import annotations

import string
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guided import recipe as recipes
from guided.core import toml
from guided.core.text import stored
from guided.errors import GuidedError, RecipeError, UsageError
from guided.recipe import Recipe
from guided.tasks.base import TaskOptions, argument, option, recipe_only

# --------------------------------------------------------------------------- TOML

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_KEYS = st.one_of(st.text(string.ascii_lowercase + "_-", min_size=1, max_size=8), _TEXT)
_PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    _TEXT,
)
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=8,
)
_TABLES = st.dictionaries(_KEYS, _VALUES, max_size=6)


def _same(one: Any, other: Any) -> bool:
    """Equal, also in the types of numbers (1 is not 1.0, nor True)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) and repr(one) == repr(other)


def _check_round_trip(table: dict[str, Any]) -> None:
    """What is written is valid TOML and the same table; for plain text so says any reader."""
    text = toml.dumps(table)
    data = tomllib.loads(text)
    assert _same(toml._restored(data), table)
    if stored(text) == text:  # no stand-ins for bytes that are not UTF-8
        assert _same(data, table)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_TABLES)
def test_toml_comes_back_as_it_went(table: dict[str, Any]) -> None:
    _check_round_trip(table)


@pytest.mark.soak
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_TABLES)
def test_toml_comes_back_as_it_went_long(table: dict[str, Any]) -> None:
    _check_round_trip(table)


def _told(call: Callable[[], object]) -> str:
    """The message of the error a call raises on purpose; empty if it raises none."""
    try:
        call()
    except GuidedError as error:
        return str(error)
    return ""


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_table_or_one_readable_error(text: str) -> None:
    told = _told(lambda: toml.parse(text, "x.toml"))
    assert told.startswith("x.toml: ") or not told


@pytest.mark.parametrize("value", [None, b"x", object(), {1, 2}, [None], "\ud800"])
def test_what_toml_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(RecipeError, match="cannot be written"):
        toml.dumps({"a": value})


BOMBS = {
    "1 MB": "a" * 1_000_000,
    "lists": "x=" + "[" * 200_000,
    "tables": "x=" + "{a=" * 60_000,
    "headers": "[" * 250_000,
    "dotted key": "a." * 100_000 + "a=1",
    "quoted dotted key": '"a b".' * 40_000 + "a=1",
    "spaced dotted key": "a . " * 60_000 + "a=1",
    "many headers": "\n".join(f"[{'a.' * 9}b{i}]" for i in range(9000)),
    "open text": '"""\\' * 60_000,
    "deep but legal": "x=" + "[" * 20 + "]" * 20,
    "long number": "x=" + "9" * 5000,
}


@pytest.mark.parametrize("what", sorted(BOMBS))
def test_bombs_are_refused_quickly(what: str) -> None:
    began = time.process_time()
    with pytest.raises(RecipeError, match=r"KiB|nested too deep|not valid TOML"):
        toml.parse(BOMBS[what], "x.toml")
    assert time.process_time() - began < 1


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    with file.open("wb") as stream:
        stream.truncate(2**40)  # a sparse terabyte
    began = time.process_time()
    with pytest.raises(RecipeError, match="larger than 256 KiB"):
        Recipe.load(file)
    assert time.process_time() - began < 1


# --------------------------------------------------------------------------- a task to try


class _Part(TaskOptions):
    kind: str
    weight: float = 1.0
    text: str = ""


class _Options(TaskOptions):
    images: list[str] = argument("pictures", [])
    steps: int = option("how many", 10, ge=1, le=100)
    rate: float = option("how fast", 0.1)
    strength: float | Literal["auto"] = option("how much", 1.0)
    method: Literal["adam", "plain"] = option("which", "adam")
    name: str | None = option("a name", None)
    file: Path = option("a file", Path("a.png"))
    flag: bool = option("yes or no", default=False)
    loss: list[_Part] = recipe_only("losses", [])
    extra: dict[str, float] = recipe_only("numbers by name", {})


@pytest.fixture(autouse=True)
def trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task ``try`` with the options above."""

    def options(name: str) -> type[TaskOptions]:
        return _Options if name == "try" else original(name)

    original = recipes.task_options
    monkeypatch.setattr(recipes, "task_options", options)


def _read(text: str, *overrides: str) -> Recipe:
    return Recipe.loads('task = "try"\n' + text, "edit.toml", overrides)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stesp = 3", "edit.toml: unknown key 'stesp'. Did you mean 'steps'?"),
        ("sede = 3", "edit.toml: unknown key 'sede'. Did you mean 'seed'?"),
        (
            "[[loss]]\nkind='clip'\n[[loss]]\nkind='clip'\ntxt='x'",
            "edit.toml: loss 2: unknown key 'txt'. Did you mean 'text'?",
        ),
        ("[[loss]]\nweight = 1.0", "edit.toml: the key 'loss 1.kind' is missing."),
        ("steps = '7'", 'edit.toml: steps = "7": input should be a valid integer.'),
        ("steps = 1.5", "edit.toml: steps = 1.5: input should be a valid integer"),
        ("steps = true", "edit.toml: steps = true: input should be a valid integer."),
        ("steps = 101", "edit.toml: steps = 101: input should be less than or equal to 100."),
        ("rate = 'fast'", 'edit.toml: rate = "fast": input should be a valid number.'),
        ("flag = 1", "edit.toml: flag = 1: input should be a valid boolean."),
        ("method = 'adm'", "edit.toml: method = \"adm\": input should be 'adam' or 'plain'."),
        ("images = 'a.png'", 'edit.toml: images = "a.png": input should be a valid array.'),
        ("seed = '7'", 'edit.toml: seed = "7": must be a whole number from 0 to 184'),
        ("seed = true", "edit.toml: seed = true: must be a whole number from 0 to 184"),
        (
            "seed = -1",
            "edit.toml: seed = -1: must be a whole number from 0 to 18446744073709551615",
        ),
        ("seed = '18446744073709551616'", "must be a whole number from 0 to 18446744073709551615"),
        ("online = 1", "edit.toml: online = 1: must be true or false."),
        ("expect = 1", "edit.toml: expect = 1: must be a table."),
        ("[expect]\nclip = {at_laest = 1}", "Did you mean 'at_least'?"),
        ("[expect]\nclip = {at_least = 'x'}", "must be a number"),
        ("[expect]\nshare = 2", "must be in (0, 1]"),
        ("[expect]\nattributes = 'pink'", "must be a table"),
        ("rate = 1979-05-27", "edit.toml: Object of type date is not JSON serializable."),
        ("rate = = 1", "edit.toml: not valid TOML: Invalid value (at line 2, column 8)."),
        ("extra = {a = 'x'}", 'edit.toml: extra.a = "x": input should be a valid number.'),
    ],
)
def test_mistakes_are_told_with_file_table_key_and_remedy(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _read(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_task_must_be_there_and_known() -> None:
    with pytest.raises(RecipeError, match=r"the key 'task' is missing\. Write for example task ="):
        Recipe.loads("seed = 1", "x.toml")
    with pytest.raises(
        RecipeError, match=r"There is no task 'portrats'\. Did you mean 'portraits'"
    ):
        Recipe.loads('task = "portrats"', "x.toml")
    with pytest.raises(RecipeError, match="must be text"):
        Recipe.loads("task = 3", "x.toml")
    for name in ("base", "__init__", "os", "..base", "_scoring"):
        with pytest.raises(RecipeError, match="There is no task"):
            Recipe.of({"task": name})


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("steps=40", "steps", 40),
        ("rate = 0.5", "rate", 0.5),
        ("rate=1", "rate", 1.0),
        ("name=purple hair", "name", "purple hair"),
        ("name='40'", "name", "40"),
        ("name=", "name", ""),
        ("name=a=b", "name", "a=b"),
        ("flag=true", "flag", True),
        ("strength=auto", "strength", "auto"),
        ("images=['a.png', 'b.png']", "images", ["a.png", "b.png"]),
        ("extra.a=2", "extra", {"a": 2.0}),
    ],
)
def test_overrides_are_toml_values(override: str, key: str, value: object) -> None:
    assert getattr(_read("rate = 0.2", override).options, key) == value


def test_overrides_reach_into_tables() -> None:
    text = "[[loss]]\nkind='clip'\n[[loss]]\nkind='identity'"
    changed = _read(text, "loss.1.weight=0.25", "seed=5", "expect.clip.at_least=0.2")
    assert [part.weight for part in changed.options.loss] == [1.0, 0.25]
    assert changed.seed == 5
    assert changed.expect == {"clip": {"at_least": 0.2}}
    with pytest.raises(UsageError, match="'2' is not a position in a list of 2"):
        _read(text, "loss.2.weight=1")
    with pytest.raises(UsageError, match="'steps' is not a table"):
        _read("steps = 3", "steps.x=1")
    with pytest.raises(RecipeError, match=r"unknown key 'wieght'\. Did you mean 'weight'"):
        _read(text, "loss.0.wieght=1")


_PARTS = st.fixed_dictionaries(
    {"kind": _TEXT}, optional={"weight": st.floats(-9, 9), "text": _TEXT}
)
_OWN = st.fixed_dictionaries(
    {},
    optional={
        "images": st.lists(_TEXT, max_size=3),
        "steps": st.integers(1, 100),
        "rate": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9)),
        "strength": st.one_of(st.floats(0, 2), st.just("auto")),
        "method": st.sampled_from(["adam", "plain"]),
        "name": _TEXT,
        "file": st.sampled_from(["a.png", "/b/c.png", "x y/z.png"]),
        "flag": st.booleans(),
        "loss": st.lists(_PARTS, max_size=3),
        "extra": st.dictionaries(_KEYS, st.floats(-9, 9), max_size=3),
        "seed": st.integers(0, 2**64 - 1),
        "device": _TEXT,
        "kit": _TEXT,
        "out": _TEXT,
        "about": _TEXT,
        "online": st.booleans(),
        "expect": st.dictionaries(_KEYS.filter(lambda k: k not in ("share", "attributes")), _PLAIN),
    },
)


def _round_trip(data: dict[str, Any]) -> None:
    first = Recipe.of({"task": "try", **data})
    second = Recipe.loads(first.dumps())
    assert second == first
    assert second.dumps() == first.dumps()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(_OWN)
def test_dump_and_load_give_the_recipe_back(data: dict[str, Any]) -> None:
    _round_trip(data)


@pytest.mark.soak
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(_OWN)
def test_dump_and_load_give_the_recipe_back_long(data: dict[str, Any]) -> None:
    _round_trip(data)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(_TABLES)
def test_any_table_is_a_recipe_or_one_readable_error(data: dict[str, Any]) -> None:
    told = _told(lambda: Recipe.of({"task": "try", **data}, "x.toml"))
    assert told.startswith("x.toml: ") or not told


def test_relative_paths_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "here.png").write_bytes(b"")
    recipe = _read("images = ['here.png', 'a text']\nname = 'here.png'\nfile = 'f.png'")
    options = recipe.located(tmp_path).options
    assert options.images == [str(tmp_path / "here.png"), "a text"]
    assert options.name == "here.png"  # no path by its key, so left alone
    assert options.file == tmp_path / "f.png"


def test_a_value_out_of_range_says_what_the_key_is_for() -> None:
    with pytest.raises(RecipeError, match=r"eta = 3.0: input should be less than") as error:
        Recipe.of({"task": "vary", "images": ["a.png"], "eta": 3.0})
    assert "noise drawn anew: 0 none" in error.value.hint
    with pytest.raises(RecipeError) as error:
        Recipe.of({"task": "portraits", "count": 0})
    assert error.value.hint == "It is: how many portraits. Left out, it is 16."
