"""Sentences drawn from a language model without any guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.core.language_model import LanguageModel
from guided.core.protocols import Latent
from guided.core.seeds import Seeds


@torch.no_grad()
def sample_tokens(
    language: LanguageModel,
    seeds: Seeds,
    *,
    prompt: list[int],
    end: int,
    length: int,
    temperature: float = 1.0,
) -> list[list[int]]:
    """For each seed the tokens drawn after a prompt, without the end token.

    ``prompt`` starts with the begin token.  A sentence depends on its own seed alone.  Rows of the
    embedding that no token has (a padded vocabulary) are never drawn.
    """
    phantom = list(getattr(getattr(language, "words", None), "phantom_tokens", ()))
    rows = torch.tensor([prompt] * len(seeds))
    context: Latent = {}
    written = torch.zeros(len(seeds), 0, dtype=torch.long)
    chance = seeds.uniform((length,), "words")
    running = torch.ones(len(seeds), dtype=torch.bool)
    last = rows
    for place in range(length):
        reading = language.read(last, context)
        context = reading.context
        logits = reading.logits.cpu().double()
        logits[:, phantom] = -torch.inf
        chosen = _drawn(logits / temperature, chance[:, place])
        last = torch.where(running, chosen, torch.full_like(chosen, end)).unsqueeze(1)
        written = torch.cat([written, last], dim=1)
        running &= last.squeeze(1) != end
        if not bool(running.any()):
            break
    return [row[: row.index(end)] if end in row else row for row in written.tolist()]


def _drawn(logits: Tensor, chance: Tensor) -> Tensor:
    """The token [B] at which the cumulative probability passes ``chance`` [B] in [0, 1)."""
    cumulative = torch.softmax(logits, dim=-1).cumsum(dim=-1)
    place = torch.searchsorted(cumulative, chance.double().unsqueeze(1)).squeeze(1)
    return place.clamp(max=logits.shape[1] - 1)
