"""Walks and inversions: replays that end where they should, parts that stay, steps as DDIM's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError, UsageError
from guided.generators.diffusion import Diffusion, load_diffusion
from guided.generators.diffusion.portrait_folder import load_own
from guided.generators.diffusion.source import ddim_scheduler, encode_images, image_size
from guided.guidance.denoise import Denoising
from guided.guidance.edit_sampler import (
    KnownRegion,
    PartialSampler,
    ddim_mean,
    ddim_std,
    start_index,
)
from guided.guidance.inversion import invert, invert_noise
from guided.scorers.clip import ClipScorer
from tests.helpers import unclip_models
from tests.helpers.small_models import write_folder

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer
denoiser = unclip_models.denoiser


WORDS = ["a red cat", "a dog on grass"]
STEPS = 6


def pictures(model: Diffusion, count: int = 2) -> Tensor:
    side = image_size(model.pipe)
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module", params=["own", "sd", "pixart", "flow"])
def model(
    request: pytest.FixtureRequest,
    denoiser: Path,
    scorer: ClipScorer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Diffusion:
    if request.param in ("sd", "pixart"):
        return load_diffusion(write_folder(request.param, tmp_path_factory.mktemp("stock")))
    found = load_own(denoiser, scorer)
    if request.param == "flow":
        from diffusers import FlowMatchEulerDiscreteScheduler

        found.pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    return found


def path_of(model: Diffusion, latents: Tensor, first: int = 0, **more: Any) -> Any:
    bound, seeds = model.bound(WORDS[: len(latents)]), Seeds.of(0, len(latents))
    return drain(
        invert(bound, ddim_scheduler(model), latents, seeds, STEPS, first=first, **more)  # type: ignore[arg-type]
    )


def walk(model: Diffusion, noise: Tensor, words: list[str] = WORDS, **more: Any) -> Tensor:
    seeds, cfg = Seeds.of(0, len(noise)), more.pop("cfg", 1.0)
    bound = model.bound(words[: len(noise)], cfg=cfg)
    loop = PartialSampler(
        bound, ddim_scheduler(model), noise, seeds, more.pop("steps", STEPS), cfg, **more
    )
    return drain(loop.steps())


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
@pytest.mark.parametrize("first", [0, 2])
def test_a_replay_told_the_same_gives_the_autoencoders_picture(
    model: Diffusion, kind: str, first: int
) -> None:
    images = pictures(model)
    latents = encode_images(model.pipe, images)
    path = path_of(model, latents, first, kind=kind)
    assert path.steps == STEPS - first
    more = {"first": first, "sample": path.latents[0], "residuals": path.residuals, "eta": path.eta}
    again = walk(model, latents, **more)
    with torch.no_grad():
        wanted, found = (model.render({"x0": each}) for each in (latents, again))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    other = walk(model, latents, [WORDS[1], WORDS[0]], **more)
    assert float((other - latents).abs().max()) > 1e-3


def test_more_rounds_leave_less_over(model: Diffusion) -> None:
    latents = encode_images(model.pipe, pictures(model))
    left = [
        sum(float(each.square().mean()) for each in path_of(model, latents, 1, rounds=n).residuals)
        for n in (1, 6)
    ]
    assert left[1] < 0.9 * left[0], left
    with pytest.raises(UsageError, match="rounds"):
        path_of(model, latents, rounds=0)


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
def test_a_path_that_is_known_is_lengthened_or_cut(model: Diffusion, kind: str) -> None:
    latents = encode_images(model.pipe, pictures(model))
    whole, part = (path_of(model, latents, first, kind=kind) for first in (1, 4))
    asked: list[int] = []
    bound, seeds = model.bound(WORDS), Seeds.of(0, 2)

    class Counted:
        def predict(self, given: Tensor, time: Any) -> Tensor:
            asked.append(1)
            return bound.predict(given, time)

    def again(known: Any, first: int) -> Any:
        loop = invert(
            Counted(), ddim_scheduler(model), latents, seeds, STEPS, first=first, kind=kind,  # type: ignore[arg-type]
            known=known,
        )  # fmt: skip
        return drain(loop)  # type: ignore[arg-type]

    assert again(whole, 4).steps == part.steps
    assert asked == []
    for found, wanted in ((again(part, 1), whole), (again(whole, 4), part)):
        for one, two in zip(
            [*found.latents, *found.residuals], [*wanted.latents, *wanted.residuals], strict=True
        ):
            assert torch.equal(one, two)
        assert found.eta == wanted.eta
    assert len(asked) == 3 * (4 if kind == "ddim" else 1)


def test_paths_of_rows_are_their_own(model: Diffusion) -> None:
    latents = encode_images(model.pipe, pictures(model))
    both, alone = path_of(model, latents, kind="ddpm"), path_of(model, latents[:1], kind="ddpm")
    for one, two in zip(both.residuals, alone.residuals, strict=True):
        torch.testing.assert_close(one[:1], two, atol=1e-4, rtol=1e-3)


def test_a_walk_from_noise_is_the_stock_loop_with_ddim(denoiser: Path, scorer: ClipScorer) -> None:
    model = load_own(denoiser, scorer)
    seeds = Seeds.of(0, 2)
    noise = model.start(seeds)["noise"]
    bound = model.bound(WORDS, cfg=3.0)
    stock = drain(Denoising(bound, model.scheduler("ddim"), noise, seeds, 5, 3.0).steps())
    torch.testing.assert_close(walk(model, noise, cfg=3.0, steps=5), stock, atol=1e-4, rtol=1e-3)
    eta: dict[str, Any] = {"cfg": 3.0, "steps": 5, "eta": 1.0}
    fresh = walk(model, noise, **eta)
    assert torch.equal(fresh, walk(model, noise, **eta))
    alone = walk(model, noise[:1], **eta)
    torch.testing.assert_close(alone, fresh[:1], atol=1e-4, rtol=1e-3)
    assert float((fresh - stock).abs().max()) > 1e-2


def test_what_is_kept_ends_as_it_was(model: Diffusion) -> None:
    latents = encode_images(model.pipe, pictures(model))
    mask = torch.zeros(2, 1, *latents.shape[2:])
    mask[:, :, 2:5, 1:4] = 1
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    found = walk(model, noise, latents=latents, first=1, known=KnownRegion(latents, mask, noise))
    stays = (mask == 0).expand_as(latents)
    assert torch.equal(found[stays], latents[stays])
    assert float((found - latents)[~stays].abs().max()) > 1e-3


def test_rows_beside_a_path_follow_it_and_those_told_the_same_too(model: Diffusion) -> None:
    latents = encode_images(model.pipe, pictures(model, 1))
    path = path_of(model, latents, 1)
    for target in (WORDS[0], WORDS[1]):
        found = walk(
            model, latents.repeat(2, 1, 1, 1), [WORDS[0], target], cfg=2.0, first=1,
            sample=path.latents[0].repeat(2, 1, 1, 1), beside=path,
        )  # fmt: skip
        torch.testing.assert_close(found[:1], latents, atol=1e-5, rtol=0)
        same = torch.allclose(found[1:], latents, atol=1e-3)
        assert same == (target == WORDS[0])


def test_what_does_not_fit_is_refused(denoiser: Path, scorer: ClipScorer) -> None:
    model = load_own(denoiser, scorer)
    latents = encode_images(model.pipe, pictures(model))
    with pytest.raises(UsageError, match="cannot begin at 7"):
        walk(model, latents, first=7)
    with pytest.raises(ShapeError, match="2 steps are known"):
        walk(model, latents, residuals=[latents, latents])
    bound, seeds = model.bound(WORDS), Seeds.of(0, 2)
    with pytest.raises(CannotDo, match="EulerDiscreteScheduler"):
        PartialSampler(bound, model.scheduler("euler"), latents, seeds, 3)
    with pytest.raises(ShapeError, match="multiple of 4"):
        encode_images(model.pipe, torch.rand(1, 3, 30, 32))
    assert [start_index(10, share) for share in (0, 0.04, 0.5, 1)] == [10, 10, 5, 0]
    with pytest.raises(UsageError, match=r"in \[0, 1\]"):
        start_index(10, 1.2)


class Shrinking:
    """A denoiser of one line; keeps the samples it was shown."""

    def __init__(self) -> None:
        self.samples: list[Tensor] = []

    def predict(self, given: Tensor, time: Any) -> Tensor:
        self.samples.append(given.detach())
        return 0.3 * given


def test_noise_leads_back_to_its_latents_after_few_evaluations() -> None:
    """Nearer than by as many evaluations at every step, and each row as it would be alone."""
    from diffusers import DDIMScheduler

    latents, seeds = torch.randn(2, 3, 4, 4, generator=torch.manual_seed(1)), Seeds.of(0, 2)
    latents[1] *= 3.0

    def back(noise: Tensor) -> Tensor:
        model: Any = Shrinking()
        loop = PartialSampler(model, DDIMScheduler(), noise, Seeds.of(0, 2), 20, sample=noise)
        return (drain(loop.steps()) - latents).square().mean((1, 2, 3)).sqrt()

    model: Any = Shrinking()
    found = drain(invert_noise(model, DDIMScheduler(), latents, seeds, 20))
    assert 20 <= len(model.samples) < 2 * 20
    rounds: Any = Shrinking()
    path = drain(invert(rounds, DDIMScheduler(), latents, seeds, 20, rounds=1))
    assert len(rounds.samples) == 2 * 20
    assert bool((back(found) < back(path.latents[0])).all())
    other: Any = Shrinking()
    alone = drain(invert_noise(other, DDIMScheduler(), latents[1:], seeds[1:], 20))
    torch.testing.assert_close(alone[0], found[1])
    close = drain(invert_noise(other, DDIMScheduler(), latents, seeds, 20, tolerance=1e-6))
    assert bool((back(close) < 0.1 * back(found)).all())


def test_the_noise_of_an_evaluation_is_its_own_wherever_a_walk_begins() -> None:
    from diffusers import DDIMScheduler

    noise, seeds = torch.randn(2, 3, 4, 4), Seeds.of(0, 2)
    model = Shrinking()
    whole = PartialSampler(model, DDIMScheduler(), noise, seeds, 5, eta=1.0)  # type: ignore[arg-type]
    end = drain(whole.steps())
    late = PartialSampler(
        Shrinking(), DDIMScheduler(), noise, seeds, 5, eta=1.0, first=2, sample=model.samples[2]
    )  # type: ignore[arg-type]
    torch.testing.assert_close(drain(late.steps()), end)
    added = []
    for index, (before, after) in enumerate(pairwise(model.samples)):
        here, lower = whole.levels.at(index), whole.levels.at(index + 1)
        mean = ddim_mean(here, lower, before, here.x0_of(before, 0.3 * before), 1.0)
        added.append((after - mean) / ddim_std(here, lower, 1.0))
    assert all(float((one - two).abs().max()) > 0.5 for one, two in pairwise(added))
    for index, each in enumerate(added):
        fresh = seeds.normal((3, 4, 4), f"walk/{index}")
        torch.testing.assert_close(each, fresh, atol=1e-3, rtol=1e-3)


def test_a_share_of_the_steps_is_rounded_to_the_nearest_step() -> None:
    assert [start_index(10, share) for share in (0.04, 0.06, 0.34, 0.36, 0.96)] == [10, 9, 7, 6, 0]
    assert [start_index(4, share) for share in (0.1, 0.2, 0.9)] == [4, 3, 0]


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_is_the_schedulers_own(eta: float) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    noise = torch.randn(2, 3, 4, 4)
    loop = PartialSampler(Shrinking(), scheduler, noise, Seeds.of(0, 2), 5)  # type: ignore[arg-type]
    given, output, fresh = torch.randn(3, 2, 3, 4, 4)
    for index, time in enumerate(scheduler.timesteps):
        here, lower = loop.levels.at(index), loop.levels.at(index + 1)
        mean = ddim_mean(here, lower, given, here.x0_of(given, output), eta)
        theirs = scheduler.step(
            output, time, given, eta=eta, variance_noise=fresh, return_dict=False
        )[0]
        torch.testing.assert_close(
            mean + ddim_std(here, lower, eta) * fresh, theirs, atol=1e-4, rtol=1e-3
        )


def test_the_kept_part_is_at_the_samples_level() -> None:
    from diffusers import DDIMScheduler

    latents, noise, sample = torch.randn(3, 2, 3, 4, 4)
    loop = PartialSampler(Shrinking(), DDIMScheduler(), noise, Seeds.of(0, 2), 5)  # type: ignore[arg-type]
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, 1] = 1
    level = loop.levels.at(2)
    found = KnownRegion(latents, mask, noise).composite(sample, level)
    source = level.alpha * latents + level.sigma * noise
    assert torch.equal(found[0, :, 1], sample[0, :, 1])
    torch.testing.assert_close(found[0, :, 2:], source[0, :, 2:])
    torch.testing.assert_close(found[1], source[1])
