from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from guided.core.images import to_tensor
from guided.worlds.portraits import KEYS, UNSEEN_WORDS, VALUES, Portrait, draw
from guided.worlds.portraits.grammar.claims import all_true
from guided.worlds.portraits.judging.caption_parser import read_caption
from guided.worlds.portraits.judging.reader import ReaderOutput
from guided.worlds.portraits.judging.text_image_figures import (
    UNSEEN,
    PromptSet,
    adherence,
    attribute_accuracy,
    diversity,
    left_open,
    nearest,
    pairwise_distance,
    r_precision,
    variation,
)

COUNT = 24


@pytest.fixture(scope="module")
def asked() -> PromptSet:
    return PromptSet.of("val", COUNT, size=32)


def truth(person: Portrait) -> ReaderOutput:
    sure = {key: {v: float(v == person.attributes[key]) for v in VALUES[key]} for key in KEYS}
    return ReaderOutput(dict(person.attributes), sure, 0.5)


def test_the_truth_obeys_and_others_do_not(asked: PromptSet) -> None:
    readings = [truth(person) for person in asked.people]
    right = attribute_accuracy(readings, asked.said)
    assert right.mean == 1
    assert right.worst[1] == 1
    wrong = attribute_accuracy(readings[1:] + readings[:1], asked.said)
    assert wrong.mean < 0.6
    counted = sum(rate.count for rate in right.by_key.values())
    assert counted == sum(len(said.claims) for said in asked.said)


def test_words_that_no_training_shows_count_apart() -> None:
    words = ("LOVE", UNSEEN_WORDS[0])
    said: list[Any] = [read_caption(f"a person in a shirt with the word {word}") for word in words]
    same = ReaderOutput(dict.fromkeys(KEYS) | {"sign": "LOVE"}, {}, 0.5)
    found = attribute_accuracy([same, same], said)
    assert {key: rate.value for key, rate in found.by_key.items()} == {"sign": 1, UNSEEN: 0}
    assert found.mean == 1
    assert found.worst == ("sign", 1)


def test_what_is_left_open_is_compared_with_the_world(asked: PromptSet) -> None:
    readings = [truth(person) for person in asked.people]
    shares = left_open(readings, asked.said)
    assert variation(shares, shares) == dict.fromkeys(KEYS, 0.0)
    assert set(np.round(shares["glasses"].sum(), 6).flatten()) <= {1.0}
    alike = left_open([readings[0]] * COUNT, asked.said)
    far = variation(alike, shares)
    assert max(far.values()) > 0.4
    assert all(0 <= value <= 1 + 1e-9 for value in far.values())
    assert len(shares["sign"]) == 2


def test_captions_are_told_again_with_the_same_claims(asked: PromptSet) -> None:
    for said, again in zip(asked.said, asked.retold, strict=True):
        assert set(again.claims) == set(said.claims)
        assert again.plan.style == "judge"
        assert {claim.key for claim in read_caption(again.text).claims} >= set()
    differ = [said.text != again.text for said, again in zip(asked.said, asked.retold, strict=True)]
    assert np.mean(differ) > 0.9


class Oracle:
    """A judge that knows which texts are those of which picture; one that knows nothing."""

    name, width, scale = "oracle", COUNT + 1, 1.0

    def __init__(self, asked: PromptSet, *, blind: bool = False) -> None:
        self.rows = {said.text: i for i, said in enumerate(asked.retold)}
        self.blind = blind

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        seen = torch.eye(COUNT, COUNT + 1)
        return seen.roll(1, 0) if self.blind else seen

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(COUNT + 1)[[self.rows.get(text, COUNT) for text in texts]]


def test_precision_of_an_oracle_and_of_a_blind_judge(asked: PromptSet) -> None:
    best = r_precision(asked.images, asked, Oracle(asked), misses=9)  # type: ignore[arg-type]
    assert best.value == 1
    blind = r_precision(asked.images, asked, Oracle(asked, blind=True), misses=9)  # type: ignore[arg-type]
    assert blind.value <= 0.1 + 1e-9


def test_others_of_whom_a_caption_is_true(asked: PromptSet) -> None:
    for said in asked.said[:6]:
        people = adherence(said.claims, 9_000_000, 3, "val")
        assert len(people) == 3
        assert all(all_true(said.claims, person.attributes) for person in people)
        assert len({tuple(p.geometry.values()) for p in people}) == 3


def test_spread_and_nearest_in_closed_form() -> None:
    images = torch.stack([torch.full((3, 2, 2), v) for v in (0.0, 1.0, 0.25, 0.25)])
    assert pairwise_distance(images, 2) == pytest.approx(0.5)
    assert nearest(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [9.0, 9.0]])) == 5


def test_the_renderer_is_as_varied_as_itself(asked: PromptSet) -> None:
    by_text = {said.text: said for said in asked.said}

    def make(texts: list[str], seeds: range) -> torch.Tensor:
        people = [
            adherence(by_text[text].claims, 9_500_000 + 1000 * seed, 1, "val")[0]
            for text, seed in zip(texts, seeds, strict=True)
        ]
        return to_tensor([draw(person, 32) for person in people])

    assert 0.85 < diversity(make, asked, "val", 32) < 1.15  # type: ignore[arg-type]
    flat = diversity(lambda texts, seeds: torch.zeros(len(texts), 3, 32, 32), asked, "val", 32)
    assert flat == 0
