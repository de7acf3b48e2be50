"""The exponential average of the weights, which is what is watched and shipped."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """A frozen copy of a module whose tensors follow it with a half-life counted in samples.

    Early on the average is shorter, so that it does not remember the initial weights: after n
    updates the memory is at most n/10 updates.  Whole-number buffers and constants that are not
    part of the state (an attention mask with its infinities) are copied.
    """

    def __init__(self, module: nn.Module, half_life: int) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life = half_life
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module, samples: int) -> None:
        """Move towards ``module`` by one step of ``samples`` samples."""
        self.updates += 1
        keep = 0.5 ** (samples / self.half_life)
        keep = min(keep, (1 + self.updates) / (10 + self.updates))
        ours, theirs = _floats(self.module), _floats(module)
        torch._foreach_lerp_(ours, theirs, 1 - keep)
        averaged = {id(tensor) for tensor in ours}
        for mine, other in zip(self.module.buffers(), module.buffers(), strict=True):
            if id(mine) not in averaged:
                mine.copy_(other)

    def state(self) -> dict[str, object]:
        """Everything ``load`` needs to go on exactly."""
        return {"updates": self.updates, "tensors": self.module.state_dict()}

    def load(self, state: dict[str, object]) -> None:
        """Take back what ``state`` gave."""
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        self.module.load_state_dict(state["tensors"])  # type: ignore[arg-type]


def _floats(module: nn.Module) -> list[Tensor]:
    """Parameters and floating point buffers that belong to the state, in a fixed order."""
    kept = set(module.state_dict())
    tensors = [
        *module.parameters(),
        *(buffer for name, buffer in module.named_buffers() if name in kept),
    ]
    return [tensor for tensor in tensors if tensor.is_floating_point()]
