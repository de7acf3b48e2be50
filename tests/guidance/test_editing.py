from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guided.core.delta import Delta
from guided.core.objective import BoundObjective, Candidate, Objective
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError
from guided.generators.stylegan2 import StyleGan2
from guided.guidance.directions import (
    channel_relevance,
    channel_weights,
    fitted_relevance,
    style_change,
    stylespace_direction,
)
from guided.guidance.edit import LatentSearch, redraw
from guided.guidance.optimise import optimise
from guided.guidance.updates import Update
from guided.losses.latent_l2 import LatentL2
from guided.losses.masked_l1 import MaskedL1
from tests.helpers.tiny_faces import STYLE, tiny_stylegan2


@pytest.fixture(scope="module")
def generator() -> StyleGan2:
    return StyleGan2(tiny_stylegan2(), average=torch.zeros(STYLE))


def finished(moves: Any) -> tuple[list[Any], Delta]:
    steps = []
    while True:
        try:
            steps.append(next(moves))
        except StopIteration as end:
            return steps, end.value


def test_the_last_draft_is_drawn_after_the_last_update(generator: StyleGan2) -> None:
    target = generator.render(generator.start(Seeds.of(5)))
    editor = LatentSearch(generator=generator, scorer=None, objective=Objective.of(MaskedL1()),
                            steps=6, extras={"target": target})  # fmt: skip
    start = generator.start(Seeds.of(0))
    steps, delta = finished(editor.propose(start, [""]))
    assert [step.index for step in steps] == [1, 2, 3, 4, 5, 6]
    shown = redraw(generator, delta, 1.0)
    assert torch.allclose(steps[-1].draft.image, shown, atol=1e-5)
    assert torch.equal(redraw(generator, delta, 0.0), generator.render(start))
    assert not torch.allclose(steps[-2].draft.image, shown, atol=1e-5)


def test_what_was_given_is_not_changed(generator: StyleGan2) -> None:
    start = generator.start(Seeds.of(0))
    before = start["w"].clone()
    target = generator.render(generator.start(Seeds.of(5)))
    editor = LatentSearch(generator=generator, scorer=None, objective=Objective.of(MaskedL1()),
                            steps=3, extras={"target": target})  # fmt: skip
    finished(editor.propose(start, [""]))
    assert torch.equal(start["w"], before)
    assert not start["w"].requires_grad
    assert all(parameter.grad is None for parameter in generator.net.parameters())


def test_colour_layers_of_style_space_stay(generator: StyleGan2) -> None:
    target = generator.render(generator.start(Seeds.of(5)))
    editor = LatentSearch(
        generator=generator, scorer=None, space="s", steps=4,
        objective=MaskedL1() + 0.01 * LatentL2(), extras={"target": target},
    )  # fmt: skip
    _, delta = finished(editor.propose(generator.start(Seeds.of(0)), [""]))
    for name, change in delta.change.items():
        assert bool(change.any()) == (int(name[2:]) % 3 != 1)


def test_prompts_must_match_rows(generator: StyleGan2) -> None:
    editor = LatentSearch(generator=generator, scorer=None, objective=Objective.of(LatentL2()))
    with pytest.raises(ShapeError, match="2 prompts were given for 1 latents"):
        finished(editor.propose(generator.start(Seeds.of(0)), ["a", "b"]))


def test_a_loss_that_is_not_finite_is_named(generator: StyleGan2) -> None:
    start = {"w": torch.full((1, 8, STYLE), float("nan"))}
    editor = LatentSearch(generator=generator, scorer=None, objective=Objective.of(LatentL2()))
    with pytest.raises(CannotDo, match="'latent_l2' is not finite"):
        finished(editor.propose(start, [""]))


# ------------------------------------------------------------------ Delta


def test_strengths_scale_the_change() -> None:
    start = {"w": torch.ones(2, 3), "s": torch.zeros(2, 1)}
    delta = Delta(start, {"w": torch.full((2, 3), 2.0)}, "test")
    assert delta.at(0.0)["w"].tolist() == start["w"].tolist()
    assert delta.at(-1.0)["w"].tolist() == [[-1.0] * 3] * 2
    assert delta.at([0.5, 1.0])["w"].tolist() == [[2.0] * 3, [3.0] * 3]
    assert delta.at(1.0)["s"].tolist() == [[0.0], [0.0]]
    assert delta.rows == 2
    assert delta.row(1).at(1.0)["w"].tolist() == [[3.0] * 3]
    other = Delta({"w": torch.tensor([[1.0], [5.0]])}, {"w": torch.tensor([[1.0], [2.0]])}, "test")
    assert other.row(1).at(0.5)["w"].tolist() == [[6.0]]
    with pytest.raises(ShapeError, match="3 strengths were given for 2"):
        delta.at([1.0, 1.0, 1.0])
    with pytest.raises(ShapeError, match="change of 'z'"):
        Delta(start, {"z": torch.zeros(2, 3)}, "test")


# ------------------------------------------------------------------ directions


def test_relevance_of_channels_that_move_one_axis() -> None:
    base = torch.nn.functional.normalize(torch.tensor([1.0, 1.0, 1.0]), dim=0)
    features = base.expand(2, 5, 2, 3).clone()
    features[0, :, 1] += torch.tensor([0.5, -0.5, 0.0])
    features[0, :, 0] -= torch.tensor([0.5, -0.5, 0.0])
    features[1, :, 1, 2] += 1.0
    found = channel_relevance(features)
    assert torch.allclose(found.norm(dim=1), torch.ones(2))
    assert torch.allclose(found[0], torch.tensor([0.5**0.5, -(0.5**0.5), 0.0]), atol=1e-6)
    assert int(found[1].argmax()) == 2
    lengths = torch.rand(2, 5, 2, 1, generator=torch.Generator().manual_seed(0)) + 0.5
    torch.testing.assert_close(channel_relevance(features * lengths), found)


def test_directions_of_texts_and_thresholds() -> None:
    target, neutral = torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    assert torch.allclose(stylespace_direction(target, neutral), torch.tensor([-1.0, 1.0]) / 2**0.5)
    relevance = torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.1, 0.995]])
    weights = channel_weights(relevance, torch.tensor([1.0, 0.0]), 0.5)
    assert weights.tolist() == pytest.approx([1.0, -0.6, 0.0])
    weaker = channel_weights(relevance[1:], torch.tensor([1.0, 0.0]), 0.05)
    assert weaker.tolist() == pytest.approx([-1.0, 1 / 6])
    with pytest.raises(CannotDo, match=r"beta = 1\.5 leaves no channel: the largest cosine is 1"):
        channel_weights(relevance, torch.tensor([1.0, 0.0]), 1.5)
    with pytest.raises(ShapeError, match="3 channels, but the codes have 4"):
        style_change(weights, [torch.ones(4), torch.ones(2)], (1,))
    assert fitted_relevance(relevance, 5).shape == (5, 2)
    with pytest.raises(ShapeError, match="the generator has 2"):
        fitted_relevance(relevance, 2)


def test_generators_without_spaces_can_be_optimised() -> None:
    """Any object with render, in_space and movable will do: a one-number world."""
    world = SimpleNamespace(
        render=lambda latent: latent["x"].view(-1, 1, 1, 1).expand(-1, 3, 2, 2),
        in_space=lambda latent, space: latent,
        movable=lambda space: ["x"],
    )
    target = torch.full((1, 3, 2, 2), 0.7)
    editor = LatentSearch(generator=world, scorer=None, objective=Objective.of(MaskedL1()),
                            steps=40, extras={"target": target})  # fmt: skip
    _, delta = finished(editor.propose({"x": torch.zeros(1, 1)}, [""]))
    assert float(delta.at(1.0)["x"]) == pytest.approx(0.7, abs=0.05)


def test_the_loop_tells_its_progress_before_and_after_every_update() -> None:
    asked, updated, counted = [], [], []

    def judge(draft: Candidate) -> torch.Tensor:
        asked.append(draft.progress)
        return draft.latent["x"].sum(1)

    def update(gradients: Any, count: int, leaves: Any, progress: float) -> Any:
        updated.append(progress)
        counted.append(count)
        return gradients, count + 1

    def draw(leaves: Any, progress: float) -> Candidate:
        return Candidate(leaves, lambda latent: latent["x"], progress)

    bound = BoundObjective(("sum",), (judge,), (1.0,))
    steps = list(optimise({"x": torch.zeros(2, 3)}, draw, bound, Update(lambda _: 0, update), 4))
    assert asked == updated == [0.0, 0.25, 0.5, 0.75]
    assert counted == [0, 1, 2, 3]
    assert [step.draft.progress for step in steps] == [0.25, 0.5, 0.75, 1.0]
    assert [step.losses["total"] for step in steps] == [0.0, -3.0, -6.0, -9.0]  # before each
    assert torch.equal(steps[-1].draft.latent["x"], torch.full((2, 3), -4.0))
