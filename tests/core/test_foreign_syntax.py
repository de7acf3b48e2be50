"""Marks of other tools in prompts are named, and plain texts are not."""

from __future__ import annotations

import pytest

from guided.core.foreign_syntax import foreign_syntax, weights_unread
from guided.recipe import Recipe
from guided.studio import run as started


@pytest.mark.parametrize(
    ("text", "shown", "instead"),
    [
        ("a cat, (a red hat:1.3), grass", "(a red hat:1.3)", "TEXT | OTHER TEXT::1.3"),
        ("(smile:-.5) of a cat", "(smile:-.5)", "TEXT | OTHER TEXT::1.3"),
        ("a ((red)) hat", "((red))", "TEXT | OTHER TEXT::1.3"),
        ("a [red] hat", "[red]", "TEXT | OTHER TEXT::1.3"),
        ("a [cat:dog:0.5] hat", "[cat:dog:0.5]", "TEXT | OTHER TEXT::1.3"),
        ("a cat <lora:film grain:0.8>", "<lora:film grain:0.8>", "loads no weights"),
        ("<lyco:x:1> a cat", "<lyco:x:1>", "loads no weights"),
        ("a cat BREAK a dog", "BREAK", "--long-text windows"),
        ("a cat AND a dog", "AND", "TEXT | TEXT::0.5"),
    ],
)
def test_syntax_of_other_tools_is_named_with_what_to_write(
    text: str, shown: str, instead: str
) -> None:
    (told,) = foreign_syntax(["a plain text", text])
    assert told.startswith(f"'{shown}' is the syntax of other tools")
    assert instead in told


def test_each_kind_is_named_once() -> None:
    told = foreign_syntax(["(a:1.2) (b:1.3) ((c)) <lora:a:1> <lyco:b:1>", "[d] AND BREAK e"])
    assert len(told) == 4


@pytest.mark.parametrize(
    "text",
    [
        "a cat (on a mat) at 3:2", "ROCK AND ROLL", "a sand castle and a hand", "purple hair::0.5",
        "a < b > c", "smile :) and :( faces", "it is 10:30 (or later)", "()", "[]", "",
    ],
)  # fmt: skip
def test_plain_texts_pass(text: str) -> None:
    assert foreign_syntax([text]) == []


def test_hostile_brackets_take_no_time() -> None:
    assert foreign_syntax(["(" * 20_000 + "[" * 20_000 + "<lora:" * 20_000]) == []


def test_weights_are_named_where_none_are_read() -> None:
    assert weights_unread(["a", "b"], "x") == []
    (told,) = weights_unread(["a", "b::0.5", "c | d"], "leave them out")
    assert "'b::0.5': leave them out" in told


def test_every_run_names_it(caplog: pytest.LogCaptureFixture) -> None:
    recipe = Recipe.of({"task": "score", "images": ["a.png"], "text": ["a (hat:1.2)"]})
    started(recipe, save=False).result()
    assert "'(hat:1.2)' is the syntax of other tools" in caplog.text
