"""Walks and inversions: replays that end where they should, parts that stay, steps as DDIM's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.run import drained
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError, UsageError
from guided.generators.diffusion import Diffusion, load_diffusion
from guided.generators.diffusion_own import load_own
from guided.generators.diffusion_source import latents_of, picture_size, walking
from guided.guidance.denoise import Denoising
from guided.guidance.inversion import invert
from guided.guidance.walk import Kept, Walk, first_of
from guided.scorers.clip import ClipScorer
from tests.diffusion.small_models import write_folder

WORDS = ["a red cat", "a dog on grass"]
STEPS = 6


def pictures(model: Diffusion, count: int = 2) -> Tensor:
    side = picture_size(model.pipe)
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
    return drained(
        invert(bound, walking(model), latents, seeds, STEPS, first=first, **more)  # type: ignore[arg-type]
    )


def walk(model: Diffusion, noise: Tensor, words: list[str] = WORDS, **more: Any) -> Tensor:
    seeds, cfg = Seeds.of(0, len(noise)), more.pop("cfg", 1.0)
    bound = model.bound(words[: len(noise)], cfg=cfg)
    loop = Walk(bound, walking(model), noise, seeds, more.pop("steps", STEPS), cfg, **more)
    return drained(loop.steps())


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
@pytest.mark.parametrize("first", [0, 2])
def test_a_replay_told_the_same_gives_the_autoencoders_picture(
    model: Diffusion, kind: str, first: int
) -> None:
    images = pictures(model)
    latents = latents_of(model.pipe, images)
    path = path_of(model, latents, first, kind=kind)
    assert path.steps == STEPS - first
    more = {"first": first, "sample": path.states[0], "added": path.added, "eta": path.eta}
    again = walk(model, latents, **more)
    with torch.no_grad():
        wanted, found = (model.render({"x0": each}) for each in (latents, again))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    other = walk(model, latents, [WORDS[1], WORDS[0]], **more)
    assert float((other - latents).abs().max()) > 1e-3


def test_more_rounds_leave_less_over(model: Diffusion) -> None:
    latents = latents_of(model.pipe, pictures(model))
    left = [
        sum(float(each.square().mean()) for each in path_of(model, latents, 1, rounds=n).added)
        for n in (1, 6)
    ]
    assert left[1] < 0.9 * left[0], left
    with pytest.raises(UsageError, match="rounds"):
        path_of(model, latents, rounds=0)


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
def test_a_path_that_is_known_is_lengthened_or_cut(model: Diffusion, kind: str) -> None:
    latents = latents_of(model.pipe, pictures(model))
    whole, part = (path_of(model, latents, first, kind=kind) for first in (1, 4))
    asked: list[int] = []
    bound, seeds = model.bound(WORDS), Seeds.of(0, 2)

    class Counted:
        def predict(self, given: Tensor, time: Any) -> Tensor:
            asked.append(1)
            return bound.predict(given, time)

    def again(known: Any, first: int) -> Any:
        loop = invert(Counted(), walking(model), latents, seeds, STEPS, first=first, kind=kind,  # type: ignore[arg-type]
                      known=known)  # fmt: skip
        return drained(loop)  # type: ignore[arg-type]

    assert again(whole, 4).steps == part.steps
    assert asked == []
    for found, wanted in ((again(part, 1), whole), (again(whole, 4), part)):
        for one, two in zip(
            [*found.states, *found.added], [*wanted.states, *wanted.added], strict=True
        ):
            assert torch.equal(one, two)
        assert found.eta == wanted.eta
    assert len(asked) == 3 * (4 if kind == "ddim" else 1)


def test_paths_of_rows_are_their_own(model: Diffusion) -> None:
    latents = latents_of(model.pipe, pictures(model))
    both, alone = path_of(model, latents, kind="ddpm"), path_of(model, latents[:1], kind="ddpm")
    for one, two in zip(both.added, alone.added, strict=True):
        torch.testing.assert_close(one[:1], two, atol=1e-4, rtol=1e-3)


def test_a_walk_from_noise_is_the_stock_loop_with_ddim(denoiser: Path, scorer: ClipScorer) -> None:
    model = load_own(denoiser, scorer)
    seeds = Seeds.of(0, 2)
    noise = model.start(seeds)["noise"]
    bound = model.bound(WORDS, cfg=3.0)
    stock = drained(Denoising(bound, model.scheduler("ddim"), noise, seeds, 5, 3.0).steps())
    torch.testing.assert_close(walk(model, noise, cfg=3.0, steps=5), stock, atol=1e-4, rtol=1e-3)
    eta: dict[str, Any] = {"cfg": 3.0, "steps": 5, "eta": 1.0}
    fresh = walk(model, noise, **eta)
    assert torch.equal(fresh, walk(model, noise, **eta))
    alone = walk(model, noise[:1], **eta)
    torch.testing.assert_close(alone, fresh[:1], atol=1e-4, rtol=1e-3)
    assert float((fresh - stock).abs().max()) > 1e-2


def test_what_is_kept_ends_as_it_was(model: Diffusion) -> None:
    latents = latents_of(model.pipe, pictures(model))
    mask = torch.zeros(2, 1, *latents.shape[2:])
    mask[:, :, 2:5, 1:4] = 1
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    found = walk(model, noise, latents=latents, first=1, kept=Kept(latents, mask, noise))
    stays = (mask == 0).expand_as(latents)
    assert torch.equal(found[stays], latents[stays])
    assert float((found - latents)[~stays].abs().max()) > 1e-3


def test_rows_beside_a_path_follow_it_and_those_told_the_same_too(model: Diffusion) -> None:
    latents = latents_of(model.pipe, pictures(model, 1))
    path = path_of(model, latents, 1)
    for target in (WORDS[0], WORDS[1]):
        found = walk(
            model, latents.repeat(2, 1, 1, 1), [WORDS[0], target], cfg=2.0, first=1,
            sample=path.states[0].repeat(2, 1, 1, 1), beside=path,
        )  # fmt: skip
        torch.testing.assert_close(found[:1], latents, atol=1e-5, rtol=0)
        same = torch.allclose(found[1:], latents, atol=1e-3)
        assert same == (target == WORDS[0])


def test_what_does_not_fit_is_refused(denoiser: Path, scorer: ClipScorer) -> None:
    model = load_own(denoiser, scorer)
    latents = latents_of(model.pipe, pictures(model))
    with pytest.raises(UsageError, match="cannot begin at 7"):
        walk(model, latents, first=7)
    with pytest.raises(ShapeError, match="2 steps are known"):
        walk(model, latents, added=[latents, latents])
    bound, seeds = model.bound(WORDS), Seeds.of(0, 2)
    with pytest.raises(CannotDo, match="EulerDiscreteScheduler"):
        Walk(bound, model.scheduler("euler"), latents, seeds, 3)
    with pytest.raises(ShapeError, match="multiple of 4"):
        latents_of(model.pipe, torch.rand(1, 3, 30, 32))
    assert [first_of(10, share) for share in (0, 0.04, 0.5, 1)] == [10, 10, 5, 0]
    with pytest.raises(UsageError, match=r"in \[0, 1\]"):
        first_of(10, 1.2)
