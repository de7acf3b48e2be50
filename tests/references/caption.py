"""ZeroCap's step as its paper's code computes it, written from its description: the yardstick.

Every candidate text is tokenised and encoded at the full context in every inner iteration, finished
beams included, and each step begins with two whole readings of the context: one for its keys and
values, one for the unguided distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.guidance.decode import Proposal, Rows
from guided.guidance.logits_processors import LogitScale
from guided.language.gpt2 import Gpt2
from guided.worlds.portraits.benchmarks._machine import clock


@dataclass
class Reference:
    """A guide for the beam search that computes everything anew, with seconds by part.

    ``part`` = n encodes every n-th candidate only and counts its time n-fold; then only the first
    iteration's cosines mean anything.
    """

    language: Gpt2
    model: Any
    tokenize: Any
    piece: Any
    target: Tensor
    factors: LogitScale
    iterations: int = 5
    part: int = 1
    seconds: dict[str, float] = field(default_factory=lambda: {"clip": 0.0, "language": 0.0})
    rounds: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def propose(self, rows: Rows) -> Proposal:
        """Log-probabilities that sum to one over all rows together."""
        start, spent = clock(self.language.device), self.seconds["clip"]
        with torch.no_grad():
            past = self.language.read(rows.tokens[:, :-1]).context
            plain = self.language.read(rows.tokens).logits.softmax(-1)
        shift = {name: torch.zeros_like(leaf) for name, leaf in past.items()}
        for _ in range(self.iterations):
            shift = self.iterate(rows, past, plain, shift)
        with torch.no_grad():
            moved = {name: leaf + shift[name] for name, leaf in past.items()}
            logits = self.language.read(rows.tokens[:, -1:], moved).logits
        fused = self.factors(logits, rows).softmax(-1) ** 0.99 * plain**0.01
        whole = clock(self.language.device) - start
        self.seconds["language"] += whole - (self.seconds["clip"] - spent) / self.part
        return Proposal((fused / fused.sum()).log())

    def iterate(
        self, rows: Rows, past: dict[str, Tensor], plain: Tensor, shift: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """One inner iteration: the shift after a normalised step."""
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in shift.items()}
        moved = {name: leaf + leaves[name] for name, leaf in past.items()}
        logits = self.language.read(rows.tokens[:, -1:], moved).logits
        probabilities = logits.softmax(-1)
        tokens = probabilities.detach().topk(512).indices
        cosines = torch.stack(
            [self.cosines(row, chosen) for row, chosen in zip(rows.tokens, tokens, strict=True)]
        )
        self.rounds.append((tokens, cosines))
        chosen = (cosines / 0.01).softmax(-1)
        spoken = probabilities.log()
        loss = -(chosen * spoken.gather(1, tokens)).sum()
        loss = loss + 0.2 * (probabilities * (spoken - plain.log())).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        stepped = {}
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            norms = gradient.flatten(1).norm(dim=1) + 1e-15
            scale = (0.3 / norms**0.9).view(-1, 1, 1, 1)
            stepped[name] = (leaf - scale * gradient).detach()
        return stepped

    @torch.no_grad()
    def cosines(self, row: Tensor, tokens: Tensor) -> Tensor:
        """Cosines [512] of one row's candidates, each encoded at all positions."""
        start = clock(self.language.device)
        said = self.language.decode(row[1:].tolist())
        texts = [said + self.piece(token) for token in tokens.tolist()][:: self.part]
        found = []
        for first in range(0, len(texts), 64):
            ids = self.tokenize(texts[first : first + 64]).to(self.target.device)
            found.append(F.normalize(self.model.encode_text(ids), dim=-1) @ self.target)
        self.seconds["clip"] += self.part * (clock(self.language.device) - start)
        return torch.cat(found).repeat_interleave(self.part)[: len(tokens)]
