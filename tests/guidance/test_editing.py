from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guided.core.editing import Delta
from guided.core.objective import Objective
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError
from guided.generators.stylegan2 import StyleGan2
from guided.guidance.directions import (
    channel_relevance,
    channel_weights,
    fitted_relevance,
    style_change,
    text_direction,
)
from guided.guidance.edit import OptimiseEditor, redraw
from guided.guidance.one_pass import DirectionEditor, MapperEditor
from guided.losses.latent_l2 import LatentL2
from guided.losses.masked_l1 import MaskedL1
from tests.tiny_faces import STYLE, tiny_stylegan2


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
    editor = OptimiseEditor(generator=generator, scorer=None, objective=Objective.of(MaskedL1()),
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
    editor = OptimiseEditor(generator=generator, scorer=None, objective=Objective.of(MaskedL1()),
                            steps=3, extras={"target": target})  # fmt: skip
    finished(editor.propose(start, [""]))
    assert torch.equal(start["w"], before)
    assert not start["w"].requires_grad
    assert all(parameter.grad is None for parameter in generator.net.parameters())


def test_colour_layers_of_style_space_stay(generator: StyleGan2) -> None:
    target = generator.render(generator.start(Seeds.of(5)))
    editor = OptimiseEditor(
        generator=generator, scorer=None, space="s", steps=4,
        objective=MaskedL1() + 0.01 * LatentL2(), extras={"target": target},
    )  # fmt: skip
    _, delta = finished(editor.propose(generator.start(Seeds.of(0)), [""]))
    for name, change in delta.change.items():
        assert bool(change.any()) == (int(name[2:]) % 3 != 1)


def test_prompts_must_match_rows(generator: StyleGan2) -> None:
    editor = OptimiseEditor(generator=generator, scorer=None, objective=Objective.of(LatentL2()))
    with pytest.raises(ShapeError, match="2 prompts were given for 1 latents"):
        finished(editor.propose(generator.start(Seeds.of(0)), ["a", "b"]))


def test_a_loss_that_is_not_finite_is_named(generator: StyleGan2) -> None:
    start = {"w": torch.full((1, 8, STYLE), float("nan"))}
    editor = OptimiseEditor(generator=generator, scorer=None, objective=Objective.of(LatentL2()))
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
    with pytest.raises(ShapeError, match="3 strengths were given for 2"):
        delta.at([1.0, 1.0, 1.0])
    with pytest.raises(ShapeError, match="change of 'z'"):
        Delta(start, {"z": torch.zeros(2, 3)}, "test")


# ------------------------------------------------------------------ one pass


def test_mapper_editor(generator: StyleGan2) -> None:
    start = generator.start(Seeds.of(0, 2))
    editor = MapperEditor(generator=generator, change=lambda w: 0.1 * w)
    steps, delta = finished(editor.propose(start, ["", ""]))
    assert len(steps) == 1
    assert torch.allclose(delta.at(1.0)["w"], 1.1 * start["w"])
    misfit = MapperEditor(generator=generator, change=lambda w: w @ torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="does not fit"):
        finished(misfit.propose(start, ["", ""]))


def test_direction_editor_gives_each_row_its_prompt(generator: StyleGan2) -> None:
    codes = generator.in_space(generator.start(Seeds.of(0, 3)), "s")
    sizes = [code.shape[1] for code in codes.values()]
    channels = sum(size for i, size in enumerate(sizes) if i % 3 != 1)
    relevance = torch.nn.functional.normalize(
        torch.randn(channels, 4, generator=torch.Generator().manual_seed(0)), dim=1
    )
    asked: list[str] = []

    def towards(prompt: str, seen: torch.Tensor) -> torch.Tensor:
        asked.append(prompt)
        return torch.eye(4)[int(prompt)].expand(len(seen), -1)

    editor = DirectionEditor(
        generator=generator, relevance=relevance, towards=towards, beta=0.1, alpha=2.0,
        deviations=[torch.full((size,), 0.5) for size in sizes],
        embed=lambda images: torch.full((len(images), 4), 0.5),
    )  # fmt: skip
    steps, delta = finished(editor.propose(codes, ["0", "1", "0"]))
    assert asked == ["0", "1"]
    assert len(steps) == 2
    change = delta.change["s_00"]
    assert torch.equal(change[0], change[2])
    assert not torch.equal(change[0], change[1])
    assert not delta.change["s_01"].any()
    expected = 2.0 * 0.5 * channel_weights(relevance, torch.eye(4)[0], 0.1)[: sizes[0]]
    assert torch.allclose(change[0], expected)


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


def test_directions_of_texts_and_thresholds() -> None:
    target, neutral = torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    assert torch.allclose(text_direction(target, neutral), torch.tensor([-1.0, 1.0]) / 2**0.5)
    relevance = torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.1, 0.995]])
    weights = channel_weights(relevance, torch.tensor([1.0, 0.0]), 0.5)
    assert weights.tolist() == pytest.approx([1.0, -0.6, 0.0])
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
    editor = OptimiseEditor(generator=world, scorer=None, objective=Objective.of(MaskedL1()),
                            steps=40, extras={"target": target})  # fmt: skip
    _, delta = finished(editor.propose({"x": torch.zeros(1, 1)}, [""]))
    assert float(delta.at(1.0)["x"]) == pytest.approx(0.7, abs=0.05)
