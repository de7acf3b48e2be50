"""The optimisers of a training: AdamW, or Muon for hidden matrices with AdamW for all else.

Muon replaces the update of a matrix by the nearest one whose directions all have the same length.
It is scaled by .2 sqrt(max(A, B)) and by ``muon_lr`` times the recipe's learning rate: with 1e-3
and a factor of 7 a matrix of 192 x 192 takes steps of .02, those of Muon's author.
Source: Loshchilov & Hutter 2019 (AdamW); Jordan et al. 2024 (Muon); Liu et al. 2025 (its scale).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from guided.training.distributed_muon import DistributedMuon
from guided.training.objective import TrainingObjective
from guided.training.settings import TrainingSettings

#: A group's key: its learning rate is so many times the recipe's.
TIMES = "times"


class Optimisers:
    """Several optimisers that step as one; ``param_groups`` are all of theirs."""

    def __init__(self, *each: torch.optim.Optimizer) -> None:
        self.each = each

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all, to be changed in place."""
        return [group for one in self.each for group in one.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 (torch's own)
        """Forget the gradients."""
        for one in self.each:
            one.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """One update of every parameter."""
        for one in self.each:
            one.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of all, in their order."""
        return {"each": [one.state_dict() for one in self.each]}

    def load_state_dict(self, packed: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        for one, own in zip(self.each, packed["each"], strict=True):
            one.load_state_dict(own)


def optimiser_of(
    objective: TrainingObjective[Any],
    model: nn.Module,
    settings: TrainingSettings,
    device: torch.device,
) -> torch.optim.Optimizer | Optimisers:
    """The optimiser that a recipe names, over everything of a model that is trained."""
    hidden: list[nn.Parameter] = []
    if settings.optimiser == "muon":
        hidden = [p for n, p in _trained(model) if objective.hidden(n, p)]
    rest = torch.optim.AdamW(
        list(_groups(objective, model, settings.weight_decay, {id(p) for p in hidden})),
        lr=settings.lr,
        betas=settings.betas,
        fused=device.type in ("cpu", "cuda"),
    )
    if settings.optimiser == "adamw":
        return rest
    muon = DistributedMuon(
        [{"params": hidden, TIMES: settings.muon_lr}],
        weight_decay=settings.weight_decay / settings.muon_lr,
        adjust_lr_fn="match_rms_adamw",
    )
    return Optimisers(muon, rest)


def set_learning_rate(optimiser: torch.optim.Optimizer | Optimisers, lr: float) -> None:
    """Give every group the learning rate, times its own factor."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get(TIMES, 1.0)


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def _groups(
    objective: TrainingObjective[Any], model: nn.Module, decay: float, hidden: set[int]
) -> Iterator[dict[str, Any]]:
    named = [(name, p) for name, p in _trained(model) if id(p) not in hidden]
    yield {"params": [p for n, p in named if objective.decays(n, p)], "weight_decay": decay}
    yield {"params": [p for n, p in named if not objective.decays(n, p)], "weight_decay": 0.0}
