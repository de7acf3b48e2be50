"""Tables over tables: what is not named stays, at every depth."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided.core.toml import merged, overridden
from guided.errors import UsageError

#: Few names, so that tables often share one, at equal and at unequal depths.
KEYS = st.sampled_from(("a", "b", "c", "ab", "bc", "abc"))
LEAVES = st.integers() | st.booleans() | st.lists(st.integers(), max_size=3)
INNER = st.dictionaries(KEYS, LEAVES, min_size=1, max_size=3)
MIDDLE = st.dictionaries(KEYS, LEAVES | INNER, min_size=1, max_size=3)
TABLES = st.dictionaries(KEYS, LEAVES | INNER | MIDDLE, min_size=1, max_size=4)


def leaves(table: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no table, with its path."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


@given(TABLES, st.data())
def test_setting_one_leaf_leaves_the_others(table: dict[str, Any], data: st.DataObject) -> None:
    before = copy.deepcopy(table)
    path, _ = data.draw(st.sampled_from(list(leaves(table))))
    change: Any = "new"
    for key in reversed(path):
        change = {key: change}
    expected = {**dict(leaves(table)), path: "new"}
    assert dict(leaves(merged(table, change))) == expected
    assert dict(leaves(overridden(table, [f"{'.'.join(path)}=new"]))) == expected
    assert table == before


@given(TABLES, TABLES)
def test_what_changes_name_wins_and_the_rest_stays(
    table: dict[str, Any], changes: dict[str, Any]
) -> None:
    both = dict(leaves(merged(table, changes)))
    assert dict(leaves(changes)).items() <= both.items()
    named = dict(leaves(changes))
    for path, value in leaves(table):
        ends = any(path[: len(other)] == other or other[: len(path)] == path for other in named)
        assert ends or both[path] == value


def test_positions_change_entries_of_a_list() -> None:
    table = {"loss": [{"kind": "clip", "weight": 1}, {"kind": "smooth", "weight": 2}]}
    assert merged(table, {"loss": {"1": {"weight": 5}}}) == {
        "loss": [{"kind": "clip", "weight": 1}, {"kind": "smooth", "weight": 5}]
    }
    with pytest.raises(UsageError, match="'2' is not a position in a list of 2"):
        merged(table, {"loss": {"2": {"weight": 5}}})
    assert merged(table, {"loss": {"kind": "x"}}) == {"loss": {"kind": "x"}}
