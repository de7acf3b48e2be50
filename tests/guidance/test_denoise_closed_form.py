"""The denoising loop against closed forms, for every scheduler and kind of prediction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guided.core.objective import Objective
from guided.errors import CannotDo, ShapeError, UsageError
from guided.guidance.denoise_estimates import Cutouts
from guided.guidance.denoise_levels import SUPPORTED, Level, Levels
from guided.guidance.guided_denoiser import Guidance
from tests.helpers.gaussian import Along, Gaussian, Near, make_scheduler, normal, run

PAIRS = [
    (name, prediction)
    for name, kind in SUPPORTED.items()
    for prediction in kind.predictions
]  # fmt: skip
RANDOM = ("DDPMScheduler", "EulerAncestralDiscreteScheduler")
MEAN, DEVIATION = 0.4, 0.6


def model(push: torch.Tensor | None = None, mean: float = MEAN) -> Gaussian:
    return Gaussian(torch.tensor(mean, dtype=torch.float64), DEVIATION, push)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow"])
def test_an_output_is_its_clean_sample_and_back(prediction: Any) -> None:
    level = Level(0.8, 0.2 if prediction == "flow" else 0.6, prediction)
    x0, noise = normal(2, 4), normal(2, 4, seed=1)
    given = level.alpha * x0 + level.sigma * noise
    output = {"epsilon": noise, "v": level.alpha * noise - level.sigma * x0, "sample": x0,
              "flow": noise - x0}[prediction]  # fmt: skip
    assert torch.allclose(level.x0_of(given, output), x0)
    change = normal(2, 4, seed=2)
    assert torch.allclose(level.x0_of(given, level.shifted(output, change)), x0 + change)
    assert torch.equal(level.shifted(output, torch.zeros_like(change)), output)
    assert torch.allclose(level.eps_of(given, x0), noise)


def miss(name: str, prediction: str, steps: int) -> float:
    """The largest error of a deterministic solver, in deviations of what should come out."""
    noise, scheduler = normal(1, 4, 8, 8), make_scheduler(name, prediction)
    latents, seen, loop = run(model(), scheduler, noise, steps)
    assert [step.index for step in seen] == list(range(1, len(loop.levels) + 1))
    first = loop.levels.at(0)
    scale = first.alpha * float(scheduler.init_noise_sigma) if loop.levels.kind.scaled else 1.0
    spread = (first.alpha**2 * DEVIATION**2 + first.sigma**2) ** 0.5
    exact = MEAN + DEVIATION * (scale * noise - first.alpha * MEAN) / spread
    return float((latents - exact).abs().max() / exact.std())


@pytest.mark.parametrize(("name", "prediction"), PAIRS)
def test_gaussian_data_comes_out_as_the_closed_form_says(name: str, prediction: str) -> None:
    if name in RANDOM:
        latents, _, _ = run(model(), make_scheduler(name, prediction), normal(2, 4, 24, 24), 160)
        assert float(latents.mean()) == pytest.approx(MEAN, abs=0.03)
        assert float(latents.std()) == pytest.approx(DEVIATION, rel=0.06)
        return
    few, many = miss(name, prediction, 40), miss(name, prediction, 160)
    assert many < 0.07
    assert many < max(few / 2, 0.006)


@pytest.mark.parametrize(("name", "prediction"), PAIRS)
def test_exact_guidance_by_a_linear_loss_is_the_tilted_gaussian(name: str, prediction: str) -> None:
    """exp(h x) N(m, c^2) is N(m + c^2 h, c^2); its perfect denoiser needs no guidance."""
    noise, direction = normal(2, 4, 4, 4), 0.5 * normal(4, 4, 4, seed=3)
    guidance = Guidance(objective=Objective.of(Along()), scale=1.0, unit="raw", jacobian="exact",
                        extras={"direction": direction}, window=(0.2, 1.0))  # fmt: skip
    guided, seen, loop = run(model(), make_scheduler(name, prediction), noise, 5, guidance)
    begin = next(i for i in range(len(seen)) if i / len(seen) >= 0.2)
    tilted, plain = model(mean=MEAN), model()
    tilted.mean = MEAN + DEVIATION**2 * direction
    other, same = make_scheduler(name, prediction), tilted.predict
    count = iter(range(1000))

    def predict(given: torch.Tensor, time: Any) -> torch.Tensor:
        plain.levels = tilted.levels
        return (plain.predict if next(count) < begin else same)(given, time)

    tilted.predict = predict  # type: ignore[method-assign]
    wanted, _, _ = run(tilted, other, noise, 5)
    assert torch.allclose(guided, wanted, atol=2e-4 if prediction == "flow" else 1e-6)
    assert sum("total" in step.losses for step in seen) == len(seen) - begin
    assert loop.guided == 2 * (len(seen) - begin)
    assert loop.skipped == 0


@pytest.mark.parametrize(
    ("name", "prediction"), [PAIRS[0], PAIRS[4], ("UniPCMultistepScheduler", "v")]
)
def test_guidance_at_the_clean_sample_is_a_model_that_says_so(name: str, prediction: str) -> None:
    noise, direction = normal(2, 4, 4, 4), normal(4, 4, 4, seed=3)
    guidance = Guidance(objective=2.0 * Along(), scale=0.25, unit="raw",
                        extras={"direction": direction})  # fmt: skip
    guided, _, _ = run(model(), make_scheduler(name, prediction), noise, 6, guidance)
    wanted, _, _ = run(model(0.5 * direction), make_scheduler(name, prediction), noise, 6)
    assert torch.allclose(guided, wanted, atol=1e-6)


def test_a_step_has_the_length_asked_for_whatever_the_loss() -> None:
    noise = normal(3, 4, 4, 4)
    lengths = []
    for weight in (1.0, 1e-3):
        guide = Guidance(objective=weight * Near(), scale=0.25)
        _, (guided,), loop = run(model(), make_scheduler("DDIMScheduler", "v"), noise, 1, guide)
        _, (plain,), _ = run(model(), make_scheduler("DDIMScheduler", "v"), noise, 1)
        assert guided.draft is not None
        assert plain.draft is not None
        moved = guided.draft.latent["x0"] - plain.draft.latent["x0"]
        lengths.append(moved.flatten(1).norm(dim=1))
    wanted = torch.full((3,), 0.25 * loop.levels.at(0).posterior_std * 64**0.5, dtype=torch.float64)
    for length in lengths:
        assert torch.allclose(length, wanted)


def test_cfg_as_the_unit_counts_how_far_the_words_moved() -> None:
    class Worded(Gaussian):
        def predict(self, given: torch.Tensor, time: Any) -> torch.Tensor:
            without, words = given.chunk(2)
            return torch.cat([super().predict(without, time), super().predict(words, time) + 0.1])

    made = Worded(torch.tensor(MEAN, dtype=torch.float64), DEVIATION)
    guide = Guidance(objective=Objective.of(Near()), scale=0.5, unit="cfg")
    noise = normal(2, 4, 4, 4)
    _, (guided,), _ = run(made, make_scheduler("DDIMScheduler", "sample"), noise, 1, guide, cfg=3.0)
    _, (plain,), _ = run(made, make_scheduler("DDIMScheduler", "sample"), noise, 1, cfg=3.0)
    moved = guided.draft.latent["x0"] - plain.draft.latent["x0"]  # type: ignore[union-attr]
    assert torch.allclose(moved.flatten(1).norm(dim=1), torch.tensor(0.5 * 3.0 * 0.1 * 8).double())
    with pytest.raises(CannotDo, match="cfg above 1"):
        run(model(), make_scheduler("DDIMScheduler", "v"), noise, 1, guide)


def test_rows_do_not_mix_and_a_seed_gives_the_same_bits() -> None:
    noise, direction = normal(3, 4, 4, 4).float(), normal(4, 4, 4, seed=3).float()
    guide = Guidance(objective=Near() + Along(), extras={"direction": direction})
    for name in ("DDPMScheduler", "UniPCMultistepScheduler"):
        runs = [
            run(model(), make_scheduler(name, "epsilon"), noise[:n], 5, guide)[0] for n in (3, 3, 1)
        ]
        assert torch.equal(runs[0], runs[1])
        assert torch.allclose(runs[0][:1], runs[2], atol=1e-5)


def test_every_and_window_say_which_steps_are_guided() -> None:
    guide = Guidance(objective=Objective.of(Near()), every=3, window=(0.2, 0.8))
    assert [i for i in range(10) if guide.guides(i, 10)] == [2, 5]
    still = Guidance(objective=Objective.of(Near()), scale=0.0)
    assert not any(still.guides(i, 10) for i in range(10))


def test_visiting_levels_again_keeps_the_distribution() -> None:
    guide = Guidance(objective=Objective.of(Near()), scale=1e-9, recurrence=2)
    pairs = {"DDIMScheduler": "v", "EulerDiscreteScheduler": "sample",
             "FlowMatchEulerDiscreteScheduler": "flow"}  # fmt: skip
    for name, prediction in pairs.items():
        scheduler = make_scheduler(name, prediction)
        latents, _, _ = run(model(), scheduler, normal(2, 4, 24, 24), 80, guide)
        assert float(latents.mean()) == pytest.approx(MEAN, abs=0.03)
        assert float(latents.std()) == pytest.approx(DEVIATION, rel=0.08)
    with pytest.raises(CannotDo, match="remembers earlier steps"):
        run(model(), make_scheduler("HeunDiscreteScheduler", "v"), normal(1, 4, 2, 2), 2, guide)


def test_guidance_that_is_not_finite_is_skipped_for_its_row_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    noise = normal(2, 4, 4, 4)
    direction = torch.ones(2, 4, 4, 4, dtype=torch.float64)
    direction[1, 0, 0, 0] = float("nan")
    guide = Guidance(objective=Objective.of(Along()), extras={"direction": direction})
    guided, seen, loop = run(model(), make_scheduler("DDIMScheduler", "v"), noise, 3, guide)
    plain, _, _ = run(model(), make_scheduler("DDIMScheduler", "v"), noise, 3)
    assert torch.isfinite(guided).all()
    assert torch.equal(guided[1], plain[1])
    assert not torch.allclose(guided[0], plain[0])
    assert [step.losses["skipped"] for step in seen] == [1.0] * 3
    assert (loop.skipped, loop.guided) == (3, 6)
    assert "skipped for 3 of 6" in caplog.text


def test_what_cannot_be_done_is_told() -> None:
    import diffusers

    noise = normal(1, 4, 2, 2)
    with pytest.raises(CannotDo, match="DEISMultistepScheduler is not supported; supported: DDIM"):
        run(model(), diffusers.DEISMultistepScheduler(), noise, 2)
    with pytest.raises(UsageError, match="steps must be 1 or more, not 0"):
        run(model(), make_scheduler("DDIMScheduler", "v"), noise, 0)
    with pytest.raises(CannotDo, match="cannot take a model that predicts 'flow_prediction'"):
        Levels(
            diffusers.HeunDiscreteScheduler().from_config({"prediction_type": "flow_prediction"})
        )
    with pytest.raises(CannotDo, match="skip_prk_steps"):
        Levels(diffusers.PNDMScheduler())
    with pytest.raises(UsageError, match="window"):
        Guidance(objective=Objective.of(Near()), window=(0.8, 0.2))
    with pytest.raises(UsageError, match="recurrence"):
        Guidance(objective=Objective.of(Near()), recurrence=0)
    with pytest.raises(CannotDo, match="scorer of latents"):
        Guidance(objective=Objective.of(Near()), decode="latent")
    with pytest.raises(ShapeError, match="2 prompts"):
        run(model(), make_scheduler("DDIMScheduler", "v"), noise, 2,
            Guidance(objective=Objective.of(Near()), prompts=("a", "b")))  # fmt: skip
    with pytest.raises(UsageError, match="smallest"):
        Cutouts(smallest=0.0)


def test_cutouts_come_from_their_streams_and_lie_inside() -> None:
    def streams(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    images = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    cutouts = Cutouts(3, size=8)
    both = cutouts.cut(images, streams(5, 6))
    assert both.shape == (6, 3, 8, 8)
    assert torch.equal(both[3:], cutouts.cut(images[1:], streams(6)))
    places = cutouts.places(12, 20, streams(5, 6))
    assert bool((places[:, :, 2].abs() + places[:, :, :2].sum(2) <= 1 + 1e-6).all())
    shares = places[:, 1, 1]
    assert 0.4 <= float(shares.min()) <= float(shares.max()) <= 1
    assert torch.allclose(places[:, 0, 0] * 20, shares * 12)
    square = images[..., :12]
    assert torch.allclose(Cutouts(1, smallest=1.0, size=12).cut(square, streams(1, 2)), square,
                          atol=1e-5)  # fmt: skip
