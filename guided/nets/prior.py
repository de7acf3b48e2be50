"""The prior of drawn portraits: diffusers' PriorTransformer, from words to a picture's embedding.

Its sequence is the words' tokens, their pooled embedding, the time step, the noisy embedding of a
picture and a learnt query, at which it answers; every token sees those before it.
Source: Ramesh et al. 2022 (unCLIP), section 2.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, PriorTransformer
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from guided.nets.attention import norm_attention, set_attention_backend


class PortraitPrior(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A noisy embedding, a time step and words to the embedding expected behind it.

    ``net`` is a PriorTransformer of ``layers`` blocks that are ``width`` wide, with norms of
    queries and keys.  It reads ``words`` tokens at most; ``text_width`` is theirs, ``embed_width``
    that of embeddings.  Inside, embeddings have mean 0 and deviation 1 in every place:
    ``set_stats`` says what they are outside.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        width: int = 128,
        heads: int = 4,
        layers: int = 4,
        words: int = 64,
        text_width: int = 192,
        embed_width: int = 256,
    ) -> None:
        super().__init__()
        self.net = PriorTransformer(
            num_attention_heads=heads, attention_head_dim=width // heads, num_layers=layers,
            embedding_dim=embed_width, num_embeddings=words, additional_embeddings=4,
        )  # fmt: skip
        norm_attention(self.net)
        self.net.encoder_hidden_states_proj = nn.Linear(text_width, width)
        nn.init.normal_(self.net.positional_embedding, std=0.02)
        nn.init.normal_(self.net.prd_embedding, std=0.02)
        nn.init.zeros_(self.net.proj_to_clip_embeddings.weight)
        nn.init.zeros_(self.net.proj_to_clip_embeddings.bias)
        for fixed in (self.net.clip_mean, self.net.clip_std):
            fixed.requires_grad_(False)

    def set_attention_backend(self, device: torch.device) -> None:
        """Compute attention as suits a device."""
        set_attention_backend(self.net, device)

    @torch.no_grad()
    def set_stats(self, features: Tensor) -> None:
        """Take the mean and the deviation of embeddings [N, D] as those of all."""
        self.net.clip_mean.copy_(features.mean(0, keepdim=True))
        self.net.clip_std.copy_(features.std(0, keepdim=True).clamp_min(1e-4))

    def normalize(self, features: Tensor) -> Tensor:
        """Embeddings [N, D] as they are inside."""
        found: Tensor = (features - self.net.clip_mean) / self.net.clip_std
        return found

    def denormalize(self, inside: Tensor) -> Tensor:
        """Unit embeddings [N, D], float32, of what is inside."""
        found: Tensor = self.net.post_process_latents(inside).float()
        return F.normalize(found, dim=1)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        pooled: Tensor,
    ) -> Tensor:
        """The clean embedding [N, D] behind noisy ones [N, D] at time steps [N], all as inside.

        Words are tokens [N, L, text_width] of which ``encoder_attention_mask`` [N, L] are read,
        and their unit embedding ``pooled`` [N, D]; of longer texts the tokens' end is cut.
        """
        kind, most = self.net.proj_in.weight.dtype, int(self.config.words)
        states, read = encoder_hidden_states[:, :most], encoder_attention_mask[:, :most]
        short = most - states.shape[1]
        states, read = F.pad(states, (0, 0, 0, short)), F.pad(read, (0, short))
        output: Tensor = self.net(
            hidden_states.to(kind), timestep, (math.sqrt(pooled.shape[1]) * pooled).to(kind),
            states.to(kind), read, return_dict=False,
        )[0]  # fmt: skip
        return output
