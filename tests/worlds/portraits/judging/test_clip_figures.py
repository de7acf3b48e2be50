from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.scorers.clip import load_clip
from guided.worlds.portraits import KEYS, VALUES, Portrait, draw, sample
from guided.worlds.portraits.grammar.free_words import FREE_PARAPHRASES
from guided.worlds.portraits.judging.caption_parser import read_caption
from guided.worlds.portraits.judging.clip_figures import (
    Gallery,
    figures,
    free_zero_shot,
    paraphrased,
)
from guided.zoo.folders import SHIPPED

COUNT = 24
PLACES = {(key, value): i for i, (key, value) in enumerate((k, v) for k in KEYS for v in VALUES[k])}


def key_of(image: Tensor) -> str:
    return sha256(image.numpy().tobytes()).hexdigest()


class Knowing:
    """Knows every portrait by its pixels and every caption by its grammar."""

    name, width, scale = "knowing", len(PLACES), 1.0

    def __init__(self, people: Sequence[Portrait]) -> None:
        self.people = {key_of(to_tensor(draw(person, 128))[0]): person for person in people}

    def embed_images(self, images: Tensor) -> Tensor:
        rows = torch.zeros(len(images), self.width)
        for row, image in zip(rows, images, strict=True):
            person = self.people[key_of(image)]
            for key, seen in person.visible().items():
                if seen:
                    row[PLACES[key, str(person.attributes[key])]] = 1
        return F.normalize(rows, dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        rows = torch.full((len(texts), self.width), 1e-6)
        for row, text in zip(rows, texts, strict=True):
            for claim in read_caption(text).claims:
                for value in claim.allowed:
                    row[PLACES[claim.key, value]] = 1 / len(claim.allowed)
        return F.normalize(rows, dim=1)


class Same(Knowing):
    """Gives everything the same place."""

    def embed_images(self, images: Tensor) -> Tensor:
        return F.normalize(torch.ones(len(images), self.width), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(torch.ones(len(texts), self.width), dim=1)


@pytest.fixture(scope="module")
def people() -> list[Portrait]:
    return [sample(i, "val") for i in range(COUNT)]


@pytest.mark.parametrize("style", ["train", "judge"])
def test_who_knows_the_world_reaches_the_ceilings(people: list[Portrait], style: str) -> None:
    found = figures(Knowing(people), "val", style, COUNT)
    for name in ("recall_text_to_image", "recall_image_to_text", "zero_shot_mean", "near_miss"):
        assert found[name].rate.value > 0.97, name
    assert found["wrong_mean"].rate.value < 0.02
    assert found["denial"].rate.value > 0.97


def test_who_knows_nothing_gets_the_floors(people: list[Portrait]) -> None:
    found = figures(Same(people), "val", "train", COUNT)
    assert found["recall_text_to_image"].rate.value == pytest.approx(1 / COUNT)
    assert found["near_miss"].rate.value == pytest.approx(0.01)
    assert found["wrong_mean"].rate.value == 0.5
    # means of prompts differ in the last bit, so not every tie is an exact one
    mean = found["zero_shot_mean"]
    assert mean.rate.value == pytest.approx(mean.floor, abs=0.02)
    assert found["paraphrases"].rate.value == 0.5
    assert found["free_paraphrases"].rate.value == 0.5
    free = found["free_zero_shot_mean"]
    assert free.floor == mean.floor
    assert free.rate.value == pytest.approx(free.floor, abs=0.02)


def test_everyday_words_are_asked_of_training_s_style_only(people: list[Portrait]) -> None:
    gallery = [sample(i, "val") for i in range(COUNT)]
    asked = {name for name in figures(Knowing(gallery), "val", "train", COUNT) if "free" in name}
    assert asked == {"free_paraphrases", "free_zero_shot_mean",
                     *(f"free_zero_shot_{key}" for key in KEYS if key != "sign")}  # fmt: skip
    assert not [name for name in figures(Knowing(people), "val", "judge", COUNT) if "free" in name]


def test_the_shipped_clip_reads_everyday_words() -> None:
    scorer = load_clip(f"local-dir:{SHIPPED / 'clip'}")
    gallery = Gallery.of(scorer, "val", 48)

    def embed(texts: Sequence[str]) -> Tensor:
        return scorer.embed_texts(list(texts)).float()

    found = free_zero_shot(gallery, embed)
    assert found["free_zero_shot_mean"].rate.value > 0.5
    assert found["free_zero_shot_hair_color"].rate.value > 0.9
    assert paraphrased(gallery, embed, FREE_PARAPHRASES).rate.value > 0.7


def test_galleries_are_in_the_order_of_their_seeds(people: list[Portrait]) -> None:
    gallery = Gallery.of(Knowing(people), "val", 5, first=2)
    assert [p.attributes for p in gallery.people] == [p.attributes for p in people[2:7]]
    assert gallery.seen.shape == (5, len(PLACES))
