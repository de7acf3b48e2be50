"""The denoiser contract: native outputs kept, predictions in every term, guidance as a wrapper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.objective import Objective
from guided.core.seeds import Seeds
from guided.guidance.denoise import Denoising
from guided.guidance.denoise_levels import Level, Levels
from guided.guidance.denoiser import ClassifierFree, Plain, Prediction
from guided.guidance.guided_denoiser import Guidance, guided
from tests.helpers.gaussian import Along, Gaussian, make_scheduler, normal


class Fixed:
    """A model that always gives the same output; with words, which come last, half more."""

    def __init__(self, output: Tensor) -> None:
        self.output, self.rows = output, 0

    def predict(self, x_t: Tensor, time: object) -> Tensor:
        self.rows = len(x_t)
        one = len(x_t) == len(self.output)
        return self.output if one else torch.cat([self.output, self.output + 0.5])

    def decode_latents(self, latents: Tensor, decode: str) -> Tensor:
        return latents[:, :3].sigmoid()

    preview = decode_latents  # type: ignore[assignment]


@pytest.mark.parametrize("kind", ["epsilon", "v", "sample", "flow"])
def test_a_prediction_says_x0_eps_and_v_of_one_sample(kind: Any) -> None:
    level = Level(0.8, 0.2 if kind == "flow" else 0.6, kind)
    x0, eps = normal(2, 3, 2, 2), normal(2, 3, 2, 2, seed=1)
    x_t, v = level.alpha * x0 + level.sigma * eps, level.alpha * eps - level.sigma * x0
    output = {"epsilon": eps, "v": v, "sample": x0, "flow": eps - x0}[kind]
    found = Plain().predict(x_t, level, Fixed(output))
    assert found.output is output
    for one, other in ((found.x0, x0), (found.eps, eps), (found.v, v)):
        torch.testing.assert_close(one, other)


def wrapped(direction: Tensor, scale: float, levels: Levels, inner: Any = None) -> Any:
    guidance = Guidance(objective=Objective.of(Along()), scale=scale, unit="raw",
                        extras={"direction": direction})  # fmt: skip
    return guided(inner or Plain(), guidance, levels, Seeds.of(0, 2))


def test_a_guided_denoiser_is_a_denoiser_that_can_be_guided_again() -> None:
    """A linear loss shifts x0 by its direction, so two of them shift it by both."""
    scheduler = make_scheduler("DDIMScheduler", "v")
    scheduler.set_timesteps(4)
    levels, x_t = Levels(scheduler), normal(2, 3, 2, 2)
    one, two = normal(3, 2, 2, seed=1), normal(3, 2, 2, seed=2)
    model, level = Fixed(normal(2, 3, 2, 2, seed=3)), levels.at(2)
    plain = Plain().predict(x_t, level, model)
    both = wrapped(two, 0.5, levels, wrapped(one, 2.0, levels)).predict(x_t, level, model)
    torch.testing.assert_close(both.x0 - plain.x0, (2 * one + 0.5 * two).expand(2, -1, -1, -1))
    told = Prediction(x_t, both.output, level)  # what a solver reads from the shifted output
    torch.testing.assert_close(told.x0, both.x0)
    assert torch.equal(both.x_t, x_t)


def test_where_nothing_is_shifted_the_models_own_output_is_handed_on() -> None:
    scheduler = make_scheduler("DDIMScheduler", "epsilon")
    scheduler.set_timesteps(4)
    levels, x_t, model = Levels(scheduler), normal(2, 3, 2, 2), Fixed(normal(2, 3, 2, 2, seed=3))
    still = wrapped(normal(3, 2, 2), 0.0, levels).predict(x_t, levels.at(0), model)
    assert still.output is model.output
    zero = wrapped(torch.zeros(3, 2, 2, dtype=x_t.dtype), 1.0, levels)
    assert torch.equal(zero.predict(x_t, levels.at(0), model).output, model.output)


def test_a_model_that_was_told_the_scale_runs_once_a_step() -> None:
    told, plain = Fixed(normal(2, 3, 2, 2)), Fixed(normal(2, 3, 2, 2))
    told.embeds_guidance = True  # type: ignore[attr-defined]
    x_t, level = normal(2, 3, 2, 2, seed=1), Level(0.8, 0.6, "v")
    for model, rows, more in ((told, 2, 0.0), (plain, 4, 3 * 0.5)):
        found = ClassifierFree(Plain(), 3.0).predict(x_t, level, model)
        assert model.rows == rows
        torch.testing.assert_close(found.output, model.output + more)


def test_the_loop_takes_any_denoiser() -> None:
    """One that always says the same x0 ends there, whatever the model says."""
    wanted = normal(2, 3, 2, 2, seed=5)

    class Sure:
        def predict(self, x_t: Tensor, level: Level, condition: Any) -> Prediction:
            eps = level.eps_of(x_t, wanted)
            return Prediction(x_t, level.alpha * eps - level.sigma * wanted, level)

    model: Any = Gaussian(torch.tensor(0.0), 1.0)
    loop = Denoising(model, make_scheduler("DDIMScheduler", "v"), normal(2, 3, 2, 2),
                     Seeds.of(0, 2), 6)  # fmt: skip
    loop.denoiser = Sure()
    steps = loop.steps()
    try:
        while True:
            next(steps)
    except StopIteration as end:
        # The last level of this schedule still holds a little noise.
        torch.testing.assert_close(end.value, wanted, atol=0.1, rtol=0)
