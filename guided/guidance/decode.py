"""Beam search over words, for any guide that proposes the next token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from guided.core.run import Step
from guided.errors import UsageError


@dataclass(frozen=True)
class Rows:
    """The unfinished sentences a guide continues, all of one length.

    ``tokens`` [R, n] are the prompt and what was written; ``owner`` [R] is each row's sample;
    ``parent`` [R] is the row of the call before that it continues (its own number at the first
    call); ``index`` counts the tokens written so far; ``running`` [R] is False for rows that have
    ended and are only shown because the search keeps them (``keep_finished``).
    """

    tokens: Tensor
    owner: Tensor
    parent: Tensor
    index: int
    running: Tensor


@dataclass(frozen=True)
class Proposal:
    """What a guide says of the next token.

    ``log_probabilities`` [R, V] add up along a beam; ``merit`` [R, V], if given, is added to a
    beam's mean log-probability for the ranking of this step alone.  ``losses`` are plain numbers.
    """

    log_probabilities: Tensor
    merit: Tensor | None = None
    losses: dict[str, float] = field(default_factory=dict)


class Guide(Protocol):
    """Proposes next tokens for rows; may keep state about the rows of its last call."""

    def propose(self, rows: Rows) -> Proposal:
        """Log-probabilities of each row's next token."""
        ...


@dataclass(frozen=True)
class Beams:
    """The sentences found so far: B beams for each of S samples.

    ``tokens`` [S, B, n] start with the prompt; ``lengths`` [S, B] count the tokens written, the
    end token included; ``sums`` [S, B] are their summed log-probabilities and ``merits`` [S, B]
    the merit of the last choice; ``stopped`` [S, B] beams have written the end token.
    """

    tokens: Tensor
    prompt: int
    lengths: Tensor
    sums: Tensor
    merits: Tensor
    stopped: Tensor

    @property
    def scores(self) -> Tensor:
        """What beams are ranked by [S, B]: the mean log-probability plus the merit."""
        return self.sums / self.lengths.clamp(min=1) + self.merits

    def ranked(self) -> Beams:
        """The beams of each sample, the best first."""
        return self.chosen(self.scores.argsort(dim=1, descending=True, stable=True))

    def chosen(self, order: Tensor) -> Beams:
        """The beams named by their places [S, K] in each sample."""
        wide = order.unsqueeze(-1).expand(-1, -1, self.tokens.shape[2])
        return replace(
            self,
            tokens=self.tokens.gather(1, wide),
            lengths=self.lengths.gather(1, order),
            sums=self.sums.gather(1, order),
            merits=self.merits.gather(1, order),
            stopped=self.stopped.gather(1, order),
        )

    def written(self, sample: int, beam: int) -> list[int]:
        """The tokens a beam has written, without the prompt and without padding."""
        end = self.prompt + int(self.lengths[sample, beam])
        tokens: list[int] = self.tokens[sample, beam, self.prompt : end].tolist()
        return tokens


@dataclass(frozen=True)
class Search:
    """How beams are searched.

    ``beams`` a sample keeps, at most ``steps`` tokens each; ``end`` is the token that ends a
    sentence and ``pad`` what finished beams are filled up with.  Finished beams cost nothing
    unless ``keep_finished``, which shows them to the guide as the reference does.
    """

    beams: int = 5
    steps: int = 15
    end: int = 13
    pad: int = 0
    keep_finished: bool = False

    def check(self) -> None:
        """Accept a search that can find something.

        Raises:
            UsageError: no beams or no steps.
        """
        if self.beams < 1:
            raise UsageError(f"A search needs at least 1 beam, not {self.beams}.")
        if self.steps < 1:
            raise UsageError(f"A sentence needs at least 1 token to write, not {self.steps}.")


def decode(prompts: Tensor, guide: Guide, search: Search) -> Iterator[Step[Beams]]:
    """Yield a Step after each written token; its draft holds the beams so far, unranked.

    ``prompts`` [S, n] are token ids, a row for each sample.  The first token is chosen from one
    row a sample, later ones from all running beams.  Rows of different samples never meet.

    Raises:
        UsageError: a search without beams or steps, or more beams than the vocabulary.
    """
    search.check()
    beams = _single(prompts)
    parent = torch.arange(len(prompts), device=prompts.device).unsqueeze(1)
    for index in range(search.steps):
        live = torch.ones_like(beams.stopped) if search.keep_finished else ~beams.stopped
        samples, places = live.nonzero(as_tuple=True)
        rows = Rows(
            tokens=beams.tokens[samples, places],
            owner=samples,
            parent=parent[samples, places],
            index=index,
            running=~beams.stopped[samples, places],
        )
        proposal = guide.propose(rows)
        row_of = torch.full_like(parent, -1)
        row_of[samples, places] = torch.arange(len(samples), device=prompts.device)
        beams, source = _extend(beams, proposal, live, search)
        parent = row_of.gather(1, source)
        yield Step(index + 1, search.steps, "write", proposal.losses, beams)
        if bool(beams.stopped.all()):
            return


def _single(prompts: Tensor) -> Beams:
    """One empty beam for each sample."""
    zeros = torch.zeros(len(prompts), 1, device=prompts.device)
    return Beams(
        tokens=prompts.unsqueeze(1),
        prompt=prompts.shape[1],
        lengths=torch.zeros_like(zeros, dtype=torch.long),
        sums=zeros,
        merits=zeros,
        stopped=torch.zeros_like(zeros, dtype=torch.bool),
    )


def _extend(beams: Beams, proposal: Proposal, live: Tensor, search: Search) -> tuple[Beams, Tensor]:
    """The best continuations of all beams of each sample, and the beam each one continues."""
    width = beams.stopped.shape[1]
    vocabulary = proposal.log_probabilities.shape[1]
    if search.beams > width * vocabulary:
        raise UsageError(
            f"{search.beams} beams cannot all differ with {vocabulary} possible tokens.",
            hint="Ask for fewer beams.",
        )
    added = _spread(proposal.log_probabilities.float(), live)
    added[beams.stopped] = float("-inf")
    added[..., search.pad].masked_fill_(beams.stopped, 0.0)
    lengths = beams.lengths + (~beams.stopped).long()
    sums = beams.sums.unsqueeze(-1) + added
    merits = beams.merits.unsqueeze(-1).expand_as(sums)
    if proposal.merit is not None:
        fresh = _spread(proposal.merit.float(), live)
        merits = torch.where(beams.stopped.unsqueeze(-1), merits, fresh)
    ranks = sums / lengths.unsqueeze(-1) + merits
    chosen = ranks.flatten(1).topk(search.beams, dim=1).indices
    source = chosen.div(vocabulary, rounding_mode="floor")
    token = chosen.remainder(vocabulary)
    kept = replace(beams, lengths=lengths).chosen(source)
    return (
        replace(
            kept,
            tokens=torch.cat([kept.tokens, token.unsqueeze(-1)], dim=-1),
            sums=sums.flatten(1).gather(1, chosen),
            merits=merits.flatten(1).gather(1, chosen),
            stopped=kept.stopped | (token == search.end),
        ),
        source,
    )


def _spread(values: Tensor, live: Tensor) -> Tensor:
    """Rows [R, V] back at their places [S, B, V]; -inf elsewhere."""
    spread = values.new_full((*live.shape, values.shape[1]), float("-inf"))
    spread[live] = values
    return spread
