"""The judge's figures of two stages: closed cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.images import to_tensor
from guided.scorers.clip import ClipScorer
from guided.worlds.portraits import VALUES, Portrait, draw
from guided.worlds.portraits.judging.diffusion_figures import REDRAWN
from guided.worlds.portraits.judging.reader import ReaderOutput
from guided.worlds.portraits.judging.text_image_figures import (
    OTHERS,
    SAMPLES,
    MetricRow,
    PromptSet,
    adherence,
    embedded,
    hard_negatives,
)
from guided.worlds.portraits.judging.unclip_figures import (
    Benchmark,
    BenchmarkResult,
    attribute_diversity,
    prior_figures,
    same_accuracy,
    scales_table,
    twins,
    vary_figures,
    verdict,
)
from tests.helpers import unclip_models
from tests.helpers.knowing_reader import Knowing

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer


SIZE, COUNT = 32, 6


@pytest.fixture(scope="module")
def asked() -> PromptSet:
    return PromptSet.of("val", COUNT, size=SIZE)


@pytest.fixture(scope="module")
def others(asked: PromptSet) -> list[Portrait]:
    """A second portrait of which each caption is true."""
    return [
        adherence(said.claims, OTHERS + 1000 * place, 1, "val")[0]
        for place, said in enumerate(asked.said)
    ]


class Sure:
    """A judge that knows which texts are those of which picture."""

    name, width, scale = "sure", COUNT + 1, 1.0

    def __init__(self, asked: PromptSet) -> None:
        self.images = list(asked.images)
        self.texts = [said.text for said in asked.retold]

    def embed_images(self, images: Tensor) -> Tensor:
        rows = [[torch.equal(image, known) for known in self.images] for image in images]
        return torch.eye(COUNT + 1)[[row.index(True) if any(row) else COUNT for row in rows]]

    def embed_texts(self, texts: list[str]) -> Tensor:
        rows = [self.texts.index(text) if text in self.texts else COUNT for text in texts]
        return torch.eye(COUNT + 1)[rows]


@pytest.fixture(scope="module")
def benchmark(asked: PromptSet, others: list[Portrait]) -> Benchmark:
    world = [*asked.people, *others, *PromptSet.of("val", COUNT, OTHERS, SIZE).people]
    reader: Any = Knowing(world)
    judge: Any = Sure(asked)
    return Benchmark.of(reader, judge, asked, hard_negatives(asked, judge), "val")


# --------------------------------------------------------------------------- the prior


def test_a_prior_that_knows_is_at_the_top_and_one_that_does_not_at_the_floor(
    asked: PromptSet, scorer: ClipScorer
) -> None:
    true = embedded(asked.images, scorer)
    texts = [said.text for said in asked.said]

    def knows(words: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return true[[texts.index(text) for text in words]]

    found = prior_figures(knows, scorer, "val", COUNT, SIZE)
    assert found["cosine"].value == pytest.approx(1, abs=1e-5)
    assert found["recall"] == MetricRow(1.0, pytest.approx(1 / COUNT), found["recall"].ceiling)
    assert found["rank"].value == 1 < found["rank"].floor
    assert found["words"].value == pytest.approx(found["words"].ceiling)
    assert found["alike"].value == pytest.approx(1, abs=1e-5)
    assert found["cosine"].floor < 1 > found["cosine"].ceiling
    told = scorer.embed_texts(texts)
    plain = prior_figures(lambda words, seeds: told, scorer, "val", COUNT, SIZE)
    for name in ("cosine", "recall", "rank"):
        assert plain[name] == found[f"{name}_text"] == plain[f"{name}_text"]
    assert plain["words"].value == pytest.approx(1, abs=1e-5)
    middle = embedded(PromptSet.of("val", COUNT, OTHERS, SIZE).images, scorer).mean(0, keepdim=True)
    same = F.normalize(middle, dim=1).expand(COUNT, -1)
    blind = prior_figures(lambda words, seeds: same, scorer, "val", COUNT, SIZE)
    assert blind["recall"].value == blind["recall"].floor


def test_what_is_imagined_anew_is_told_apart(scorer: ClipScorer) -> None:
    def drawn(words: Sequence[str], seeds: Sequence[int]) -> Tensor:
        rows = [torch.randn(24, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return F.normalize(torch.stack(rows), dim=1)

    found = prior_figures(drawn, scorer, "val", COUNT, SIZE)
    assert abs(found["alike"].value) < 0.5
    assert found["alike"].floor == 1


# --------------------------------------------------------------------------- words to pictures


def maker(first: Tensor, second: Tensor) -> Any:
    """A maker of two pictures of each caption, told apart by their seeds."""
    return lambda texts, seeds: first if seeds[0] == SAMPLES else second


def test_the_renderer_reaches_every_ceiling(
    benchmark: Benchmark, asked: PromptSet, others: list[Portrait]
) -> None:
    again = to_tensor([draw(person, SIZE) for person in others])
    found = benchmark.look(maker(asked.images, again))
    for name in ("accuracy", "r_precision", "diversity", "varied", "worst"):
        row = found.rows[name]
        assert row.value == pytest.approx(row.ceiling), name
        assert row.floor < row.ceiling, name
    assert found.rows["accuracy"].value == 1
    assert found.rows["open"].value == 0
    assert found.rows["varied"].value > 0.2
    places, images = twins(asked, "val", SIZE)
    assert places == list(range(COUNT))
    assert torch.equal(images, again)


def test_pictures_that_are_all_alike_are_not_varied(benchmark: Benchmark, asked: PromptSet) -> None:
    grey = asked.images.mean(0, keepdim=True).expand_as(asked.images)
    found = benchmark.look(maker(grey, grey))
    for name in ("diversity", "varied"):
        assert found.rows[name].value == found.rows[name].floor == 0
    assert found.rows["accuracy"].value < 0.7
    assert found.rows["open"].value > 0.3
    still = benchmark.look(maker(asked.images, asked.images))
    assert still.rows["accuracy"].value == 1
    assert still.rows["diversity"].value == 0


def test_words_on_shirts_differ_only_where_one_has_none(asked: PromptSet) -> None:
    said = [each for each in asked.said if "sign" not in each.mentioned][:1]
    base: dict[str, Any] = dict(asked.people[0].attributes)
    signs = [v for v in VALUES["sign"] if v != "none"]
    one, two, bare = (
        ReaderOutput({**base, "sign": v}, {}, 0) for v in (signs[0], signs[1], "none")
    )
    assert attribute_diversity([one], [two], said) == 0
    assert attribute_diversity([one], [bare], said) > 0


def test_accuracy_by_caption_is_that_of_the_table(benchmark: Benchmark, asked: PromptSet) -> None:
    half = asked.images.clone()
    half[::2] = 0
    found = benchmark.look(maker(half, half))
    whole = np.full((1, COUNT), 1 / COUNT)
    assert found.accuracies(whole)[0] == pytest.approx(found.rows["accuracy"].value)
    better = benchmark.look(maker(asked.images, half))
    told = verdict(found, better)
    gap = found.rows["accuracy"].value - better.rows["accuracy"].value
    assert told.accuracy.value == pytest.approx(gap)
    assert told.accuracy.low <= gap <= told.accuracy.high
    assert not told.accurate
    assert verdict(better, found).accurate
    apart = found.rows["diversity"].value - better.rows["diversity"].value
    assert told.diversity.value == pytest.approx(apart)


def test_a_part_of_the_captions_is_judged_as_they_alone_would_be(
    benchmark: Benchmark, asked: PromptSet, others: list[Portrait]
) -> None:
    some = Benchmark.of(
        benchmark.reader, benchmark.judge, asked.first(3), benchmark.hard_negatives[:3], "val"
    )
    again = to_tensor([draw(person, SIZE) for person in others[:3]])
    found = some.look(maker(asked.images[:3], again))
    assert found.rows["diversity"].value == pytest.approx(1)
    assert found.rows["r_precision"].value == found.rows["accuracy"].value == 1


# --------------------------------------------------------------------------- the verdict


def test_diversity_is_compared_at_the_same_accuracy() -> None:
    table = [(0.80, 1.0), (0.90, 0.6), (0.95, 0.5), (0.93, 0.4)]
    assert same_accuracy(table, 0.70) == 1.0
    assert same_accuracy(table, 0.85) == pytest.approx(0.8)
    assert same_accuracy(table, 0.925) == pytest.approx(0.55)
    assert same_accuracy(table, 0.95) == 0.5
    assert same_accuracy(table, 0.96) is None


def test_the_verdict_asks_the_table(
    benchmark: Benchmark, asked: PromptSet, others: list[Portrait]
) -> None:
    again = to_tensor([draw(person, SIZE) for person in others])
    best, still = (benchmark.look(maker(asked.images, each)) for each in (again, asked.images))
    assert verdict(best, still).rival == 0
    assert verdict(best, still).more_varied(best.rows["diversity"].value)
    assert not verdict(still, best).more_varied(still.rows["diversity"].value)
    assert verdict(best, still, [(0.9, 1.5), (0.95, 1.2)]).rival is None
    found = verdict(best, still, [(0.9, 2.0), (1.0, 1.2)])
    assert found.rival == 1.2
    assert not found.more_varied(best.rows["diversity"].value)
    page = scales_table({1.0: (best, still), 5.0: (still, best)})
    assert page.count("\n") == 3
    assert page.splitlines()[2].startswith("| 1 | 1.000 |")


def test_a_worse_reading_is_within_five_points_only_when_it_is() -> None:
    hits, apart = np.ones((100, 13)), np.ones(100)
    one = BenchmarkResult(
        {"accuracy": MetricRow(1, 0, 1), "diversity": MetricRow(1, 0, 1)}, hits, hits, apart
    )
    for wrong, accurate in ((4, True), (6, False)):
        some = hits.copy()
        some[:wrong] = 0
        assert verdict(replace(one, hits=some), one).accurate is accurate


# --------------------------------------------------------------------------- the rest


def test_variations_are_judged_way_by_way() -> None:
    reader: Any = Knowing(PromptSet.of("val", 2, REDRAWN, SIZE).people)
    ways = {"same": lambda images: images, "lost": torch.zeros_like}
    found = vary_figures(ways, reader, "val", 2, SIZE)
    assert found["same_kept"].value == 1 > found["lost_kept"].value
    assert found["same_l1"].value == 0 < found["lost_l1"].value
