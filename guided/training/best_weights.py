"""The best weights so far, kept inside the model that trains, so that checkpoints hold them too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_NONE = -(2**62)
_PARTS = 10**9


class BestWeights(nn.Module):
    """Room for one module's weights in half precision, with the score they had.

    The weights lie in a buffer of bytes: an average over weights copies bytes and does not mix
    them.  ``update`` keeps what scores higher than all before, ``restore`` gives it back.
    """

    content: Tensor
    mark: Tensor

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        count = sum(tensor.numel() for tensor in like.state_dict().values())
        self.register_buffer("content", torch.zeros(2 * count, dtype=torch.uint8))
        self.register_buffer("mark", torch.tensor(_NONE))

    @property
    def score(self) -> float | None:
        """The score of what is kept, to nine digits after the point; None while nothing is."""
        found = int(self.mark)
        return None if found == _NONE else found / _PARTS

    @torch.no_grad()
    def update(self, score: float, module: nn.Module) -> bool:
        """Keep a module's weights if no better ones are kept; whether they were kept."""
        mark = round(score * _PARTS)
        if mark <= int(self.mark):
            return False
        flat = torch.cat([t.reshape(-1).half() for t in module.state_dict().values()])
        self.content.copy_(flat.view(torch.uint8))
        self.mark.fill_(mark)
        return True

    @torch.no_grad()
    def restore(self, module: nn.Module) -> bool:
        """Give a module the kept weights; False where there are none."""
        if self.score is None:
            return False
        flat, place = self.content.view(torch.half), 0
        for tensor in module.state_dict().values():
            piece = flat[place : place + tensor.numel()]
            tensor.copy_(piece.view(tensor.shape))
            place += tensor.numel()
        return True
