from __future__ import annotations

import pytest

from guided.worlds.portraits.grammar.contrast_prompts import (
    contrast_prompts,
    contrast_prompts_by_attribute,
)


@pytest.mark.parametrize(
    ("text", "count", "among"),
    [
        ("a person with pink hair", 7, "a person with blue hair"),
        ("a person wearing round glasses", 3, "a person without glasses"),
        ("a person without glasses", 4, "a person wearing sunglasses"),
        ("a person with glasses", 1, "a person with no glasses"),
        ("a frowning person", 3, "a smiling person"),
        ("an orange top hat", 9, "a red top hat"),
        ("a smiling person, on a blue background", 11, "a frowning person, on a blue background"),
        ("a dog in space", 0, None),
        ("", 0, None),
    ],
)
def test_rivals(text: str, count: int, among: str | None) -> None:
    found = contrast_prompts(text)
    assert len(found) == len(set(found)) == count
    assert text not in found
    assert among is None or among in found


def test_articles_follow_the_next_word() -> None:
    assert "an orange top hat" in contrast_prompts("a red top hat")
    assert "a red top hat" in contrast_prompts("an orange top hat")


def test_rivals_of_one_fact_stay_together() -> None:
    for text in ("an orange top hat", "a smiling person, on a blue background", "a dog in space"):
        assert [
            other for others in contrast_prompts_by_attribute(text) for other in others
        ] == contrast_prompts(text)
    shapes, colors = contrast_prompts_by_attribute("an orange top hat")
    assert "an orange cap" in shapes
    assert "a red top hat" in colors


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("a guy in shades", "a guy in round glasses"),
        ("in front of a red backdrop", "in front of a green backdrop"),
        ("red wall behind", "a green wall behind"),
        ("a grumpy lady", "a shocked lady"),
        ("someone in a navy snapback", "someone in a red cap"),
    ],
)
def test_plain_english_has_rivals_too(text: str, other: str) -> None:
    assert other in contrast_prompts(text)


def test_words_of_no_phrase_have_no_rivals() -> None:
    assert contrast_prompts("a wall and a road, behind the hills") == []
