"""What texts say to edits: directions, what they compete with, the least strength that agrees."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.editing.base import Editor, EditState, Sources
from guided.editing.strengths import least_agreeing
from guided.editing.texts import ClipEditMetrics, PromptTexts, TextDirections
from guided.models import Models
from guided.worlds.portraits.grammar.contrast_prompts import (
    contrast_prompts,
    contrast_prompts_by_attribute,
)
from tests.helpers.tiny_edit import write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    files = write_models(tmp_path_factory.mktemp("models"))
    named = {key: files[key] for key in ("generator", "scorer")}
    return Models({"generator": named["generator"]}, named, world_name="portraits")


def sources(models: Any, neutral: str = "auto") -> Sources:
    return Sources([None], models, Seeds.of(0), neutral=neutral)


def test_directions_go_through_templates(models: Models) -> None:
    seen = torch.nn.functional.normalize(torch.ones(2, 24), dim=1)
    plain = TextDirections(sources(models, "a portrait"), ["{}"])("a red hat", seen)
    scorer = models.scorer
    wanted = scorer.embed_texts(["a red hat"]) - scorer.embed_texts(["a portrait"])
    wanted = torch.nn.functional.normalize(wanted, dim=1).expand(2, -1)
    assert torch.allclose(plain, wanted, atol=1e-5)
    many = TextDirections(sources(models, "a portrait"))("a red hat", seen)
    assert torch.allclose(many.norm(dim=1), torch.ones(2), atol=1e-5)
    assert not torch.allclose(plain, many, atol=1e-3)
    of_no_facts = TextDirections(sources(models), ["{}"])("a dog", seen)
    plain_dog = TextDirections(sources(models, "a portrait"), ["{}"])("a dog", seen)
    assert torch.allclose(of_no_facts, plain_dog, atol=1e-6)


def test_directions_lead_from_what_a_picture_shows(models: Models) -> None:
    towards, embed = TextDirections(sources(models), ["{}"]), models.scorer.embed_texts
    text = "a person with pink hair"
    told, target = embed(contrast_prompts(text)), embed([text])
    found = towards(text, told[[0, 3]])
    wanted = torch.nn.functional.normalize(target - told[[0, 3]], dim=1)
    assert torch.allclose(found, wanted, atol=1e-5)
    both = "a smiling person, on a blue background"
    first, second = (embed(others) for others in contrast_prompts_by_attribute(both))
    shown = first[1:2]
    near = second[(shown @ second.T).argmax(1)]
    wanted = torch.nn.functional.normalize(2 * embed([both]) - shown - near, dim=1)
    assert torch.allclose(towards(both, shown), wanted, atol=1e-5)


def test_a_prompt_competes_with_what_contradicts_it(models: Models) -> None:
    metrics = ClipEditMetrics(
        sources(models, "a portrait"), ["a bald person", "a dog", "a hat | a dog::0.5"]
    )
    counts = [len(others) for others in metrics.texts.others]
    assert counts[0] > 3
    assert counts[1:] == [1, 1]
    neutral = models.scorer.embed_texts(["a portrait"])[0]
    assert torch.allclose(metrics.texts.others[1][0], neutral, atol=1e-6)


def test_agreement_beats_every_other_text() -> None:
    eye = torch.eye(4)
    texts = PromptTexts(eye[:1], [eye[1:3]])
    assert texts.agrees(0, torch.tensor([0.6, 0.5, 0.5, 0.9]))
    assert not texts.agrees(0, torch.tensor([0.6, 0.5, 0.7, 0.0]))


class Rising(Editor):
    """An image at strength s has the features (1 - s * reach, s * reach), by its row's reach."""

    tried = tuple(i / 10 for i in range(1, 16))

    def render(self, state: EditState, prompts: Sequence[str], strength: float) -> torch.Tensor:
        return strength * state.images


class Counting:
    """A scorer that counts what it embeds."""

    def __init__(self) -> None:
        self.calls = 0

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        values = images[:, 0, 0, 0]
        return torch.stack([1 - values, values], dim=1)


def test_auto_takes_the_first_strength_at_which_the_answer_changes() -> None:
    eye, scorer = torch.eye(2), Counting()
    texts = PromptTexts(eye[1:].expand(3, 2), [eye[:1]] * 3)
    pictures = [torch.full((1, 3, 1, 1), reach) for reach in (1.0, 2.0, 0.1)]
    known = Sources(pictures, SimpleNamespace(scorer=scorer), Seeds.of(0, 3))  # type: ignore[arg-type]
    state = EditState.of(known)
    strengths, images, features = drain(least_agreeing(Rising(), state, ["a"] * 3, texts))
    assert strengths == [0.6, 0.3, 1.5]
    assert images[:, 0, 0, 0].tolist() == pytest.approx([0.6, 0.6, 0.15])
    assert features[:, 1].tolist() == images[:, 0, 0, 0].tolist()
    assert scorer.calls == 15
