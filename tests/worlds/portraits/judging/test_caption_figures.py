from __future__ import annotations

import numpy as np
import pytest

from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.grammar.corpus import uniform_person
from guided.worlds.portraits.grammar.frames import JUDGE, TRAIN, CaptionStyle
from guided.worlds.portraits.grammar.plain import plain_sentence
from guided.worlds.portraits.judging.caption_figures import (
    caption_figures,
    prior_distances,
    repeated,
)
from guided.worlds.portraits.judging.caption_parser import read_caption
from guided.worlds.portraits.splits import sample


@pytest.mark.parametrize("style", [TRAIN, JUDGE], ids=["train", "judge"])
def test_captions_are_read_as_they_were_meant(style: CaptionStyle) -> None:
    rng = np.random.default_rng(0)
    wrong = []
    for seed in range(1500):
        said = caption(sample(seed), rng, style=style, negation=0.2)
        reading = read_caption(said.text)
        if set(reading.claims) != set(said.claims) or reading.unread > 0.1:
            wrong.append((said.text, set(said.claims) ^ set(reading.claims), reading.unread))
    assert len(wrong) <= 15, wrong[:5]


def test_plain_sentences_are_not_captions() -> None:
    rng = np.random.default_rng(1)
    shares = [read_caption(plain_sentence(rng)).unread for _ in range(500)]
    assert sum(share > 0.2 for share in shares) > 480


def test_true_captions_have_full_precision() -> None:
    rng = np.random.default_rng(2)
    people = [sample(seed) for seed in range(200)]
    true = caption_figures([caption(p, rng).text for p in people], people)
    other = caption_figures([caption(p, rng).text for p in people[1:] + people[:1]], people)
    assert true.precision > 0.99
    assert other.precision < 0.5
    assert 0.2 < true.recall < 0.9
    assert true.f1 > other.f1
    assert all(share > 0.05 for share in true.families.values())


def test_figures_by_hand() -> None:
    person = sample(0).with_attribute("eyes", "blue").with_attribute("glasses", "none")
    person = person.with_attribute("expression", "smile").with_attribute("hat", "none")
    person = person.with_attribute("hair_style", "long").with_attribute("hair_color", "red")
    figures = caption_figures(["a smiling person with blue eyes and a full beard"], [
        person.with_attribute("beard", "goatee").with_attribute("earrings", "none")
        .with_attribute("sign", "none")
    ])  # fmt: skip
    assert figures.precision == pytest.approx(2 / 3)
    assert figures.mentioned == 3
    # hair colour and style, skin, eyes, expression, beard, background, clothing can be seen
    assert figures.recall == pytest.approx(2 / 8)
    with pytest.raises(ValueError, match="1 portraits need as many captions, not 2"):
        caption_figures(["a", "b"], [person])


def test_the_prior_is_met_by_uniform_people_and_missed_by_others() -> None:
    rng = np.random.default_rng(3)
    uniform = [read_caption(caption(uniform_person(rng), rng).text) for _ in range(6000)]
    assert max(prior_distances(uniform).values()) < 0.09
    biased = [read_caption("a person with blue eyes and pink hair")] * 50
    assert prior_distances(biased)["eyes"] == pytest.approx(0.8)
    assert prior_distances(biased)["skin"] == 1.0


def test_repeats() -> None:
    assert repeated(["a", "b", "a", "a"]) == 0.5
    assert repeated([]) == 0.0


def test_intervals_hold_the_figures_and_shrink() -> None:
    rng = np.random.default_rng(4)
    people = [sample(seed) for seed in range(160)]
    others = [people[place - place % 2] for place in range(160)]
    texts = [caption(person, rng).text for person in others]
    few, many = caption_figures(texts[:40], people[:40]), caption_figures(texts, people)
    for name in ("precision", "recall", "f1", "mentioned"):
        low, high = many.intervals[name]
        assert low <= getattr(many, name) <= high
        wide, narrow = few.intervals[name], many.intervals[name]
        assert narrow[1] - narrow[0] <= wide[1] - wide[0]
    assert many.intervals["precision"][1] - many.intervals["precision"][0] > 0.01
