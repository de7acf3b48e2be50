"""Generator and discriminator in one module, and how their two games become one loss.

Both learn from one pass of the discriminator over real and generated pictures.  The gradient that
comes back to a generated picture is that of the discriminator's loss softplus(d) / 2; a row of it
times -2 exp(-d) is that of the generator's own loss softplus(-d), so the discriminator is not run
again for it.  This is exact because no row of the discriminator has a gradient to another row.
Sources: Goodfellow et al. 2014 (non-saturating loss); Reed et al. 2016 (real pictures with wrong
texts); Mescheder et al. 2018 (R1); Karras et al. 2020 (lazy R1; adaptive augmentation); Zhao et al.
2020 (the same augmentation of real and generated pictures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.nets.text_gan import TextDiscriminator, TextGanShape, TextGenerator
from guided.training.best_weights import BestWeights

_STEEPEST = 12.0


@dataclass(frozen=True)
class GanPhase:
    """What happens in a step: whether the discriminator plays, how far its word counts, R1."""

    d_step: bool
    g_weight: float = 1.0
    penalty: float = 0.0


@dataclass(frozen=True)
class DiscriminatorOutput:
    """One step: pictures [n, 3, S, S] in about [-1, 1] and what steered them [n, style]; logits [n]
    of real pictures with their texts, generated ones, real ones with wrong texts; the penalty [].
    """

    made: Tensor
    styles: Tensor
    real: Tensor | None = None
    fake: Tensor | None = None
    wrong: Tensor | None = None
    penalty: Tensor | None = None


class GanModules(nn.Module):
    """The generator, its discriminator, a read-out of its styles, and the best generator so far.

    ``chance`` is the share of rows that adaptive augmentation changes.
    """

    chance: Tensor

    def __init__(
        self, shape: TextGanShape, critic: tuple[int, ...], features: int, group: int, facts: int
    ) -> None:
        super().__init__()
        self.generator = TextGenerator(shape)
        self.critic = TextDiscriminator(shape.size, shape.text, critic, features, group)
        self.facts = nn.Linear(shape.style, facts) if facts else None
        self.best = BestWeights(self.generator)
        self.register_buffer("chance", torch.zeros(()))

    def forward(
        self, phase: GanPhase, real: Tensor, z: Tensor, text: Tensor, wrong: Tensor, uniform: Tensor
    ) -> DiscriminatorOutput:
        """Both players' view of real pictures [n, 3, S, S] in [-1, 1], z, texts and wrong texts.

        ``uniform`` [2 n, 8] in [0, 1) decides the augmentation, real rows first.
        """
        styles = self.generator.styles(z, text)
        made = self.generator.synthesis(styles)
        if not phase.d_step:
            return DiscriminatorOutput(made, styles)
        shown = made.view_as(made)
        chance = float(self.chance)
        pictures = augmented(torch.cat([real, shown]), uniform, chance)
        features = self.critic.look(pictures)
        seen_real, seen_fake = features.chunk(2)
        fake = self.critic.judge(seen_fake, text)
        if shown.requires_grad:
            g_weight = generator_factor(fake.detach(), phase.g_weight)[:, None, None, None]
            hooked: Any = shown
            hooked.register_hook(lambda gradient: gradient * g_weight.to(gradient.dtype))
        penalty = self._penalty(real, text, phase.penalty) if phase.penalty else None
        return DiscriminatorOutput(
            made,
            styles,
            self.critic.judge(seen_real, text),
            fake,
            self.critic.judge(seen_real, wrong),
            penalty,
        )

    def _penalty(self, real: Tensor, text: Tensor, weight: float) -> Tensor:
        """weight / 2 times the mean squared gradient of the logits of half the rows, float32."""
        half = max(len(real) // 2, 1)
        pictures = real[:half].detach().float().requires_grad_(True)
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            logits = self.critic(pictures, text[:half])
            (slope,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
            return 0.5 * weight * slope.square().flatten(1).sum(1).mean()


def generator_factor(logits: Tensor, g_weight: float = 1.0) -> Tensor:
    """What turns the gradient of softplus(d) / 2 into that of pull * softplus(-d), row by row.

    >>> generator_factor(torch.zeros(1))
    tensor([-2.])
    """
    return -2 * g_weight * torch.exp(-logits.clamp(-_STEEPEST, _STEEPEST))


def critic_loss(seen: DiscriminatorOutput, mismatched: Tensor) -> Tensor:
    """softplus(-d(x, c)) + (softplus(d(G, c)) + softplus(d(x, wrong c))) / 2, a mean over rows [].

    ``mismatched`` [n] is 0 for rows without a wrong text, which are left out of the last mean.
    """
    assert seen.real is not None
    assert seen.fake is not None
    assert seen.wrong is not None
    weight = mismatched.to(seen.real.dtype)
    wrong = (weight * F.softplus(seen.wrong)).sum() / weight.sum().clamp_min(1)
    return F.softplus(-seen.real).mean() + 0.5 * (F.softplus(seen.fake).mean() + wrong)


def augmented(images: Tensor, uniform: Tensor, chance: float = 0.0) -> Tensor:
    """Images [n, 3, S, S] moved by up to a sixteenth of their side, edges repeated.

    A share ``chance`` of the rows is also zoomed (0.8 to 1.25), moved by up to an eighth, and
    loses a quarter of its area.  Colours stay and nothing is mirrored: both are what texts say.
    ``uniform`` [n, 8] in [0, 1) decides.
    """
    side = images.shape[-1]
    if chance > 0:
        images = _adapted(images, uniform, chance)
    reach = side // 16
    if not reach:
        return images
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    places = (uniform[:, :2] * (2 * reach + 1)).long().tolist()
    rows = [  # unbound, so that the gradient of a row is not the size of the batch
        row[:, top : top + side, left : left + side]
        for row, (top, left) in zip(padded.unbind(), places, strict=True)
    ]
    return torch.stack(rows)


def _adapted(images: Tensor, uniform: Tensor, chance: float) -> Tensor:
    """The rows that luck chooses zoomed and moved, and with one square greyed."""
    hit = uniform[:, 2] < chance
    if not bool(hit.any()):
        return images
    draw, chosen = uniform[hit], images[hit]
    zoom = 1.25 ** (2 * draw[:, 3] - 1)
    move = (draw[:, 4:6] - 0.5) / 2
    matrix = torch.zeros(len(chosen), 2, 3, device=images.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = zoom
    matrix[:, :, 2] = move
    grid = F.affine_grid(matrix, list(chosen.shape), align_corners=False)
    zoomed = F.grid_sample(chosen, grid, padding_mode="border", align_corners=False)
    side = images.shape[-1]
    line = (torch.arange(side, device=images.device) + 0.5) / side
    far = [(line - draw[:, 6 + axis, None]).abs() for axis in (0, 1)]
    covered = (far[0][:, None, :, None] < 0.25) & (far[1][:, None, None, :] < 0.25)
    out = images.clone()
    out[hit] = zoomed.masked_fill(covered, 0.0)
    return out


class GradientNorms:
    """The norm of the gradients of named modules, filled in while the backward pass runs."""

    def __init__(self, **modules: nn.Module) -> None:
        self.norms: dict[str, Tensor] = {}
        for name, module in modules.items():
            parameters: Iterable[Any] = module.parameters()
            for parameter in (p for p in parameters if p.requires_grad):
                parameter.register_hook(self._adder(name))

    def fresh(self, device: torch.device) -> dict[str, Tensor]:
        """Zeros that become the norms of the next backward pass."""
        for name in self.norms:
            self.norms[name] = torch.zeros((), device=device)
        return {f"gradient_{name}": norm for name, norm in self.norms.items()}

    def _adder(self, name: str) -> Callable[[Tensor], None]:
        self.norms.setdefault(name, torch.zeros(()))

        def add(gradient: Tensor) -> None:
            total = self.norms[name]
            total.copy_(torch.hypot(total, gradient.detach().float().norm()))

        return add
