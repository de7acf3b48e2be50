from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.worlds.portraits.attributes import KEYS
from guided.worlds.portraits.grammar.names import name
from guided.worlds.portraits.grammar.steps import drawing_steps
from guided.worlds.portraits.grammar.tags import tags
from guided.worlds.portraits.record import record
from guided.worlds.portraits.splits import SPLITS, sample

SEEDS = st.integers(0, 10**8)
STEP_WORDS = {
    "bald": "bald", "smile": "smile", "neutral": "neutral", "frown": "frown",
    "surprised": "surprised", "full": "full beard", "tophat": "top hat",
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.sampled_from(SPLITS))
def test_steps_say_each_visible_attribute_once_and_nothing_hidden(seed: int, split: str) -> None:
    person = sample(seed, split)
    text, seen = " ".join(drawing_steps(person)), person.visible()
    parts = {
        "hair_color": rf"\b{person.attributes['hair_color']} hair\b",
        "skin": rf"\b{person.attributes['skin']} skin\b",
        "eyes": rf"\b{person.attributes['eyes']} eyes\b",
        "background": rf"background with {person.attributes['background']}\b",
        "clothing": rf"an? {person.attributes['clothing']} shirt\b",
        "hat_color": rf"an? {person.attributes['hat_color']} (beanie|cap|top hat)\b",
        "sign": rf"Write {person.attributes['sign']} on",
    }
    for key in KEYS:
        value = str(person.attributes[key])
        pattern = parts.get(key, rf"\b{STEP_WORDS.get(value, value)}\b")
        expected = seen[key] and value != "none"
        assert len(re.findall(pattern, text)) == int(expected), (key, value, text)
    assert drawing_steps(person)[0].startswith("Fill the background")
    if person.attributes["hat"] != "none":
        assert drawing_steps(person)[-1].startswith("Top it with")
    assert not re.search(r"\b(a [aeiou]|an [^aeiou])", text)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.sampled_from(SPLITS))
def test_tags_name_what_is_seen(seed: int, split: str) -> None:
    person = sample(seed, split)
    found, seen = tags(person), person.visible()
    assert len(found) == len(set(found))
    assert (f"{person.attributes['eyes']} eyes" in found) is seen["eyes"]
    assert (f"{person.attributes['hair_color']} hair" in found) is seen["hair_color"]
    assert any(tag.endswith(name("hat", str(person.attributes["hat"]))) for tag in found) is (
        person.attributes["hat"] != "none"
    )
    assert ("bald" in found) is (person.attributes["hair_style"] == "bald" and seen["hair_style"])
    assert ("earrings" in found) is (person.attributes["earrings"] == "earrings")
    assert not any("none" in tag.lower() for tag in found)
    assert found[-1] == f"{person.attributes['background']} background"


def test_a_record_is_plain_data_and_repeats() -> None:
    person = sample(11)
    made = record(person, 11, "11.png", {"hat": (1, 2, 30, 40)})
    assert json.loads(json.dumps(made)) == made
    assert list(made) == [
        "file", "attributes", "visible", "captions", "boxes", "questions", "steps", "tags",
    ]  # fmt: skip
    assert list(made["attributes"]) == list(made["visible"]) == list(KEYS)
    assert made["boxes"] == {"hat": [1, 2, 30, 40]}
    assert len(made["captions"]) == 5
    assert set(made["questions"][0]) == {"question", "answer", "family"}
    assert record(person, 11, "11.png", {"hat": (1, 2, 30, 40)}) == made
    assert record(person, 12, "11.png", {})["captions"] != made["captions"]


def test_a_record_draws_from_its_own_stream() -> None:
    before = np.random.default_rng([11, 7]).random()
    record(sample(11), 11, "11.png", {})
    assert np.random.default_rng([11, 7]).random() == before


def test_a_record_refuses_a_negative_seed() -> None:
    with pytest.raises(ValueError, match="from 0 up, not -1"):
        record(sample(0), -1, "0.png", {})
