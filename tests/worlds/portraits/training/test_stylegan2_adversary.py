from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.worlds.portraits.training.adversary import (
    Discriminator,
    contest,
    critic_loss,
    gradient_penalty,
)


@pytest.fixture
def critic() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(6, (8, 8, 8))


def _pictures() -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(1)
    made = torch.randn(4, 3, 16, 16, generator=stream).requires_grad_()
    return made, torch.randn(4, 3, 16, 16, generator=stream), torch.randn(4, 6, generator=stream)


def test_the_made_picture_follows_the_non_saturating_loss(critic: Discriminator) -> None:
    made, truth, w = _pictures()
    drawn, imagined = contest(critic, made, truth, w, push=0.7)
    (pull,) = torch.autograd.grad(critic_loss(drawn, imagined), made)
    (expected,) = torch.autograd.grad(0.7 * F.softplus(-critic(made, w)).mean(), made)
    torch.testing.assert_close(pull, expected, atol=1e-7, rtol=1e-4)


def test_the_critic_follows_its_own_loss_whatever_the_push(critic: Discriminator) -> None:
    made, truth, w = _pictures()
    pulls = []
    for push in (0.0, 2.0):
        drawn, imagined = contest(critic, made, truth, w, push)
        pulls.append(torch.autograd.grad(critic_loss(drawn, imagined), list(critic.parameters())))
    plain = F.softplus(-critic(truth, w)).mean() + F.softplus(critic(made.detach(), w)).mean()
    expected = torch.autograd.grad(plain, list(critic.parameters()))
    for found in pulls:
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_without_a_push_nothing_reaches_the_made_picture(critic: Discriminator) -> None:
    made, truth, w = _pictures()
    drawn, imagined = contest(critic, made, truth, w, push=0.0)
    (pull,) = torch.autograd.grad(critic_loss(drawn, imagined), made)
    assert not pull.any()


def test_the_penalty_is_half_the_squared_slope() -> None:
    class Linear(torch.nn.Module):
        def forward(self, images: Tensor, w: Tensor) -> Tensor:
            return 3 * images.flatten(1)[:, 0] + 4 * images.flatten(1)[:, 7]

    _, truth, w = _pictures()
    penalty = gradient_penalty(Linear(), truth, w)  # type: ignore[arg-type]
    assert float(penalty.detach()) == pytest.approx(12.5)


def test_a_critic_learns_which_w_belongs_to_a_picture(critic: Discriminator) -> None:
    stream = torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(300):
        w = torch.randn(16, 6, generator=stream)
        truth = w[:, :3, None, None].expand(-1, -1, 16, 16)
        other = torch.randn(16, 3, 1, 1, generator=stream).expand(-1, -1, 16, 16)
        drawn, imagined = contest(critic, other.clone(), truth, w, 0.0)
        loss = critic_loss(drawn, imagined) + 0.01 * gradient_penalty(critic, truth, w)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    w = torch.randn(300, 6, generator=stream)
    truth = w[:, :3, None, None].expand(-1, -1, 16, 16)
    other = truth.roll(1, 0)
    with torch.no_grad():
        assert float((critic(truth, w) > critic(other, w)).float().mean()) > 0.9
