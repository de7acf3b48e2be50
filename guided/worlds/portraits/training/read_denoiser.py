"""The denoiser as it is trained: what its middle tokens know of a portrait is read out.

A word that decides a few pixels has next to no weight in a squared error, so a denoiser learns last
to listen to it.  Here the tokens between two blocks have to tell, through one linear map of their
mean, what the clean picture shows.  What they know by then, from the words or from the noisy
latents, the later blocks can draw.  The map is left out of what is shipped.
Source: Yu et al. 2024 (REPA) align such tokens with a frozen encoder; here they name attributes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from guided.nets.denoiser import PortraitDenoiser
from guided.worlds.portraits.training.truth_losses import FACTS


class ReadDenoiser(nn.Module):
    """A denoiser ``net`` and the map ``read`` of its tokens after so many blocks."""

    def __init__(self, net: PortraitDenoiser, after: int) -> None:
        super().__init__()
        self.net, self.after = net, after
        self.read = nn.Linear(int(net.config["width"]), FACTS)

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """The denoiser's output [n, C, h, w] and logits [n, FACTS] of attributes' values."""
        found: list[Tensor] = []

        def keep(_block: nn.Module, _given: Any, tokens: Tensor) -> None:
            found.append(tokens)

        blocks: Any = self.net.net.transformer_blocks
        handle = blocks[self.after - 1].register_forward_hook(keep)
        try:
            output = self.net(*given)
        finally:
            handle.remove()
        return output, self.read(found[0].mean(1))
