from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from guided.training.best_weights import BestWeights
from guided.training.ema import EMA
from guided.training.text_gan_modules import (
    GanModules,
    GanPhase,
    GradientNorms,
    augmented,
    critic_loss,
    generator_factor,
)
from tests.helpers.tiny_text_gan import tiny_generator, tiny_players

ROWS = 8


def inputs() -> tuple[torch.Tensor, ...]:
    stream = torch.Generator().manual_seed(3)
    real = torch.rand(ROWS, 3, 32, 32, generator=stream) * 2 - 1
    z = torch.randn(ROWS, 8, generator=stream)
    text, wrong = F.normalize(torch.randn(2, ROWS, 24, generator=stream), dim=2)
    return real, z, text, wrong, torch.rand(2 * ROWS, 8, generator=stream)


def gradients(modules: GanModules, loss: torch.Tensor, which: str) -> dict[str, torch.Tensor]:
    module = getattr(modules, which)
    found = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    names = [name for name, _ in module.named_parameters()]
    return {n: g for n, g in zip(names, found, strict=True) if g is not None}


def test_one_pass_gives_both_players_their_own_gradients() -> None:
    modules, (real, z, text, wrong, uniform) = tiny_players(), inputs()
    mismatched = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1])
    seen = modules(GanPhase(d_step=True), real, z, text, wrong, uniform)
    critic_loss(seen, mismatched).backward()
    ours = {n: p.grad for n, p in modules.named_parameters() if p.grad is not None}

    made = modules.generator(z, text)

    def logits(fake: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second = modules.critic.look(augmented(torch.cat([real, fake]), uniform)).chunk(2)
        judge = modules.critic.judge
        return judge(first, text), judge(second, text), judge(first, wrong)

    true, fake, miss = logits(made.detach())
    kept = mismatched > 0
    loss = F.softplus(-true).mean() + 0.5 * (
        F.softplus(fake).mean() + F.softplus(miss[kept]).mean()
    )
    for name, gradient in gradients(modules, loss, "critic").items():
        assert torch.allclose(ours[f"critic.{name}"], gradient, atol=1e-6), name
    own = F.softplus(-logits(made)[1]).mean()
    for name, gradient in gradients(modules, own, "generator").items():
        assert torch.allclose(ours[f"generator.{name}"], gradient, atol=1e-6), name
        assert gradient.abs().max() > 0, name


def test_the_factor_turns_one_loss_into_the_other() -> None:
    logits = torch.linspace(-8, 8, 9, dtype=torch.float64, requires_grad=True)
    (theirs,) = torch.autograd.grad(0.5 * F.softplus(logits).sum(), logits)
    (own,) = torch.autograd.grad(F.softplus(-logits).sum(), logits)
    assert torch.allclose(theirs * generator_factor(logits.detach()), own)
    assert torch.allclose(generator_factor(logits.detach(), 0.5) * theirs, 0.5 * own)


def test_the_penalty_is_the_mean_squared_slope_of_half_the_rows() -> None:
    modules, (real, z, text, wrong, uniform) = tiny_players(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        seen = modules(GanPhase(True, 1.0, 6.0), real, z, text, wrong, uniform)
    pictures = real[:4].clone().requires_grad_()
    logits = modules.critic(pictures, text[:4])
    (slope,) = torch.autograd.grad(logits.sum(), pictures)
    assert seen.penalty is not None
    assert seen.penalty.dtype == torch.float32
    assert float(seen.penalty.detach()) == pytest.approx(
        float(3.0 * slope.square().flatten(1).sum(1).mean()), rel=1e-4
    )
    seen.penalty.backward()
    assert modules.critic.stem.weight.grad is not None


def test_a_regression_does_not_ask_the_discriminator() -> None:
    modules, (real, z, text, wrong, uniform) = tiny_players(), inputs()
    seen = modules(GanPhase(d_step=False), real, z, text, wrong, uniform)
    assert seen.fake is None
    seen.made.square().mean().backward()
    assert modules.critic.stem.weight.grad is None


def test_augmentation_moves_and_keeps_colours() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    still = torch.full((2, 8), 0.5)
    assert torch.equal(augmented(images, still), images)
    corner = torch.zeros(2, 8)
    moved = augmented(images, corner)
    assert torch.equal(moved[:, :, 2:, 2:], images[:, :, :-2, :-2])
    flat = torch.tensor([0.3, -0.2, 0.9]).view(1, 3, 1, 1).expand(4, 3, 32, 32)
    uniform = torch.rand(4, 8, generator=torch.Generator().manual_seed(1))
    out = augmented(flat, uniform, chance=1.0)
    covered = (out == 0).all(1)
    assert 0.05 < float(covered.float().mean()) <= 0.27
    assert torch.allclose(out.permute(0, 2, 3, 1)[~covered], flat[0, :, 0, 0], atol=1e-6)
    untouched = augmented(images, torch.cat([still[:, :2], torch.ones(2, 6)], 1), chance=0.5)
    assert torch.equal(untouched, images)


def test_norms_are_those_of_the_gradients() -> None:
    modules = tiny_players()
    norms = GradientNorms(generator=modules.generator)
    parts = norms.fresh(torch.device("cpu"))
    _, z, text, _, _ = inputs()
    modules.generator(z, text).square().mean().backward()
    total = torch.stack([p.grad.norm() for p in modules.generator.parameters()]).norm()  # type: ignore[union-attr]
    assert float(parts["gradient_generator"]) == pytest.approx(float(total), rel=1e-5)


def test_the_best_weights_come_back_and_survive_averaging() -> None:
    first, second = tiny_generator(1), tiny_generator(2)
    keeper = torch.nn.ModuleDict({"best": BestWeights(first), "net": tiny_generator(3)})
    best: BestWeights = keeper["best"]  # type: ignore[assignment]
    assert best.score is None
    assert not best.restore(second)
    assert best.update(-0.25, first)
    assert not best.update(-0.25, second)
    average = EMA(copy.deepcopy(keeper), 10)
    average.update(keeper, 5)
    average.update(keeper, 5)
    kept = average.module["best"]  # type: ignore[index]
    assert kept.score == pytest.approx(-0.25)
    assert kept.restore(second)
    for mine, theirs in zip(second.parameters(), first.parameters(), strict=True):
        assert torch.equal(mine, theirs.half().float())
