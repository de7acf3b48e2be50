"""Losses that add up: the algebra, binding, names, and what a draft keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guided.core.objective import (
    BoundLoss,
    BoundObjective,
    Candidate,
    Loss,
    LossContext,
    Modality,
    Objective,
)
from guided.errors import CannotDo, ShapeError


@dataclass(frozen=True)
class Near(Loss):
    """Squared distance of the leaf ``w`` to a number, a row."""

    to: float = 0.0
    modality: ClassVar[Modality] = "latent"

    def bind(self, scene: LossContext) -> BoundLoss:
        return lambda draft: ((draft.latent["w"] - self.to) ** 2).flatten(1).sum(1)


@dataclass(frozen=True)
class MeanBrightness(Loss):
    """Mean of the picture, a row."""

    def bind(self, scene: LossContext) -> BoundLoss:
        return lambda draft: draft.image.flatten(1).mean(1)


@dataclass(frozen=True)
class WordClip(Loss):
    """Wants words."""

    modality: ClassVar[Modality] = "text"

    def bind(self, scene: LossContext) -> BoundLoss:
        raise AssertionError("never bound")


class Eye:
    """A scorer that counts how often it looks."""

    name, width, scale = "eye", 3, 1.0

    def __init__(self) -> None:
        self.looks = 0

    def embed_images(self, images: Tensor) -> Tensor:
        self.looks += 1
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.ones(len(texts), 3)


def draft(rows: int = 3, start: Candidate | None = None) -> tuple[Candidate, list[int]]:
    renders: list[int] = []

    def render(latent: dict[str, Tensor]) -> Tensor:
        renders.append(1)
        return latent["w"][:, :3, None, None].expand(-1, -1, 4, 4).sigmoid()

    w = torch.arange(float(rows * 4)).view(rows, 4) / 10
    return Candidate({"w": w.requires_grad_()}, render, 0.5, start), renders


def scene(**changes: Any) -> LossContext:
    return LossContext(**({"scorer": None, "prompts": ("x",), "start": draft()[0]} | changes))


def total(objective: Objective, at: Candidate) -> Tensor:
    value: Tensor = objective.bind(scene())(at)[0]
    return value


WEIGHTS = st.floats(-4, 4, allow_nan=False)


@given(WEIGHTS, WEIGHTS, WEIGHTS)
def test_sums_and_multiples_mean_what_they_say(a: float, b: float, c: float) -> None:
    at, _ = draft()
    near, far, bright = Near(0.0), Near(2.0), MeanBrightness()
    parts = [total(Objective.of(loss), at) for loss in (near, far, bright)]
    wanted = c * (a * parts[0] + b * parts[1]) + parts[2]
    found = total(c * (a * near + far * b) + bright, at)
    assert torch.allclose(found, wanted.to(found), atol=1e-4)


def test_order_and_grouping_do_not_matter() -> None:
    at, _ = draft()
    one, two, three = Near(1.0), 0.3 * Near(2.0), 2 * MeanBrightness()
    left, right = (one + two) + three, one + (two + three)
    assert left == right
    assert torch.allclose(total(left, at), total(three + two + one, at))


def test_weight_zero_is_told_but_has_no_say() -> None:
    at, _ = draft()
    both = (Near(1.0) + 0 * MeanBrightness()).bind(scene())
    value, parts = both(at)
    assert torch.equal(value, total(Objective.of(Near(1.0)), at))
    assert set(parts) == {"near", "mean_brightness"}
    (slope,) = torch.autograd.grad(value.sum(), at.latent["w"])
    assert torch.allclose(slope, 2 * (at.latent["w"] - 1))
    endless, told = (Near(1.0) + 0 * Near(float("inf"))).bind(scene())(at)
    assert torch.equal(endless, value)
    assert bool(told["near_2"].isinf().all())
    nothing, _ = (0 * Near(1.0)).bind(scene())(at)
    assert torch.equal(nothing, torch.zeros(3))


def test_rows_do_not_mix() -> None:
    at, _ = draft(4)
    bound = (Near(1.0) + MeanBrightness()).bind(scene())
    together = bound(at)[0]
    for row in range(4):
        single = Candidate({"w": at.latent["w"][row : row + 1]}, at._render)
        assert torch.allclose(bound(single)[0], together[row : row + 1])


def test_names_are_kinds_numbered_where_they_repeat() -> None:
    assert Near().kind == "near"
    assert WordClip().kind == "word_clip"
    assert Objective.of(Near(), MeanBrightness()).names() == ["near", "mean_brightness"]
    assert Objective.of(Near(), MeanBrightness(), Near(2.0)).names() == [
        "near_1", "mean_brightness", "near_2",
    ]  # fmt: skip


def test_a_loss_that_cannot_see_is_named() -> None:
    with pytest.raises(
        CannotDo, match="'word_clip' looks at text, but this loop offers image and latent"
    ):
        (Near() + WordClip()).bind(scene())
    with pytest.raises(CannotDo, match=r"'mean_brightness' looks at image.*offers latent"):
        Objective.of(MeanBrightness()).bind(scene(), modalities=("latent",))


def test_an_empty_objective_is_refused() -> None:
    with pytest.raises(CannotDo, match="has no loss"):
        Objective(()).bind(scene())


def test_a_loss_must_return_a_number_a_row() -> None:
    bad = BoundObjective(("bad",), (lambda at: at.latent["w"],), (1.0,))
    with pytest.raises(ShapeError, match=r"'bad' must return \[B\], not \[3, 4\]"):
        bad(draft()[0])


def test_contexts_name_what_is_missing() -> None:
    with pytest.raises(CannotDo, match=r"'clip' needs a scorer\. Name one"):
        scene().need_scorer("clip")
    eye = Eye()
    assert scene(scorer=eye).need_scorer("clip") is eye
    with pytest.raises(CannotDo, match="role 'identity'; this loop has: none"):
        scene().need_model("identity", "identity")
    with pytest.raises(CannotDo, match=r"this loop has: a, b\. .*recipe key identity"):
        scene(models={"b": 1, "a": 2}).need_model("identity", "identity")
    assert scene(models={"a": 2}).need_model("a", "x") == 2


def test_a_draft_renders_at_the_first_touch_and_once() -> None:
    at, renders = draft()
    total(Objective.of(Near()), at)
    assert renders == []
    total(Objective.of(MeanBrightness(), MeanBrightness()), at)
    at.image.sum()
    assert renders == [1]


def test_a_draft_is_embedded_once_for_each_scorer() -> None:
    at, _ = draft()
    one, two = Eye(), Eye()
    first = at.embed(one)
    assert at.embed(one) is first
    at.embed(two)
    assert (one.looks, two.looks) == (1, 1)


def test_an_embedding_is_never_another_scorers() -> None:
    """Scorers that are gone must not leave their place to new ones of the same address."""
    at, _ = draft()
    for _ in range(50):
        eye = Eye()
        at.embed(eye)
        assert eye.looks == 1
        del eye


def test_the_start_of_a_draft() -> None:
    first, _ = draft()
    later, _ = draft(start=first)
    assert first.start is first
    assert later.start is first
    assert later.progress == 0.5
