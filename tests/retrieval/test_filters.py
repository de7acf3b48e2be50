from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided.errors import UsageError
from guided.retrieval.filters import parse
from guided.retrieval.store import Store, open_or_create, open_store
from guided.retrieval.writer import Entry, Writer
from tests.retrieval.folder import WIDTH, vector

ROWS = [
    {"year": 1999, "tag": "cat", "size_cm": 1.5, "a": {"hat": "cap"}},
    {"year": 2005, "tag": "dog", "a": {"hat": None}, "tags": ["big", "Brown"]},
    {"year": 2010, "tag": "O'Hara", "ok": True},
    {"year": "2010", "tag": "cat", "ok": False},
    {},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    import torch

    folder = tmp_path_factory.mktemp("filters")
    with open_or_create(folder, "model", "print", WIDTH) as made, Writer(made) as writer:
        entries = [
            Entry(f"/pictures/{'old' if i < 2 else 'new'}/{i}.png", 100 * i, 1, str(i), row)
            for i, row in enumerate(ROWS)
        ]
        writer.add(entries, torch.stack([vector(bytes([i])) for i in range(len(ROWS))]))
    with open_store(folder) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year >= 2005", [1, 2]),
        ("year < 2005", [0]),
        ("year = 2010", [2]),
        ("year = '2010'", [3]),
        ("year != 2010", [0, 1, 3, 4]),
        ("tag = 'cat' and year = 1999", [0]),
        ("tag = 'cat' or tag = 'dog'", [0, 1, 3]),
        ("tag = 'cat' or tag = 'dog' and year > 3000", [0, 3]),
        ("(tag = 'cat' or tag = 'dog') and year < 3000", [0, 1]),
        ("not tag = 'cat'", [1, 2, 4]),
        ("not not tag = 'cat'", [0, 3]),
        ("not (tag = 'cat' or tag = 'dog')", [2, 4]),
        ("not (tag = 'cat' and year = 1999)", [1, 2, 3, 4]),
        ("tag = 'O''Hara'", [2]),
        ('tag = "O\'Hara"', [2]),
        ("tag in ('dog', 'O''Hara')", [1, 2]),
        ("year in (1999)", [0]),
        ("a.hat = 'cap'", [0]),
        ("a.hat = none", [1, 2, 3, 4]),
        ("a.hat exists", [0]),
        ("not year exists", [4]),
        ("ok = true", [2]),
        ("ok = FALSE", [3]),
        ("tags contains 'brown'", [1]),
        ("tag contains 'CA'", [0, 3]),
        ("size_cm > 1.4 AND size_cm < 1.6e0", [0]),
        ("size >= 300", [3, 4]),
        ("name = '3.png'", [3]),
        ("folder contains 'old'", [0, 1]),
        ("file contains '/new/4'", [4]),
        ("tag > 'cb'", [1]),
        ("year > 'a'", []),
        ("unknown = 1", []),
    ],
)
def test_conditions(store: Store, text: str, expected: list[int]) -> None:
    assert [key - 1 for key in store.matching(parse(text)).tolist()] == expected


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "at its end: expected a name"),
        ("year", "expected a comparison"),
        ("year >=", "expected a number"),
        ("year = = 3", "expected a number"),
        ("(year = 3", "expected '\\)'"),
        ("year = 3)", "expected 'and', 'or' or the end"),
        ("year = 3 tag = 4", "expected 'and', 'or' or the end"),
        ("and = 3", "expected a name"),
        ("tag in 'x'", "expected '\\(' after 'in'"),
        ("tag in ('x'", "expected ',' or '\\)'"),
        ("tag = 'x", "was expected"),
        ("year = 3; DROP TABLE items", "was expected"),
        ("a..b = 1", "expected a comparison|was expected"),
        ("not " * 60 + "a = 1", "at most 50 deep"),
        ("a = 1 or " * 600, "at most 4000"),
    ],
)
def test_conditions_that_cannot_be_read(text: str, where: str) -> None:
    with pytest.raises(UsageError, match=where):
        parse(text)


@given(st.text(max_size=60))
def test_no_text_reaches_sql_or_breaks_it(text: str) -> None:
    try:
        condition = parse(text)
    except UsageError:
        return
    assert condition.sql.count("?") == len(condition.values)


@given(st.text(min_size=1, max_size=20))
def test_any_text_can_be_compared_with(value: str) -> None:
    quoted = value.replace("'", "''")
    assert parse(f"tag = '{quoted}'").values == ('$."tag"', value)


def test_what_a_query_finds_is_what_python_finds(store: Store, tmp_path: Path) -> None:
    for bound in (1990, 1999, 2005, 2010.5):
        expected = [
            i for i, row in enumerate(ROWS)
            if isinstance(row.get("year"), int) and row["year"] >= bound
        ]  # fmt: skip
        found = store.matching(parse(f"year >= {json.dumps(bound)}")).tolist()
        assert [key - 1 for key in found] == expected
