"""ZeroCap: a language model's context is moved until its next word agrees with CLIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guided.core.language_model import LanguageModel, LanguageModelOutput, TextCandidate
from guided.core.objective import Candidate, LossContext, Objective
from guided.core.protocols import Latent
from guided.errors import CannotDo, UsageError
from guided.guidance.decode import Proposal, Rows
from guided.guidance.decode_candidates import Candidates, EndingScorer
from guided.guidance.logits_processors import LogitsProcessors
from guided.guidance.optimise import optimise
from guided.guidance.updates import zerocap_steps

#: What probabilities sum to one over: one beam, or all beams of a sample as in the reference.
Whole = Literal["beam", "sample"]


@dataclass(frozen=True)
class CaptionModels:
    """The language model, the scorer of its words and what each sample's words should fit.

    ``targets`` [S, D] are unit vectors.  ``piece`` is the text of one token.
    """

    language: LanguageModel
    scorer: EndingScorer
    targets: Tensor
    piece: Callable[[int], str]

    def candidates(self, rows: Rows) -> Candidates:
        """The continuations of what each row says after the begin token."""
        begin = 1 if int(rows.tokens[0, 0]) == self.language.begin else 0
        texts = [self.language.decode(row) for row in rows.tokens[:, begin:].tolist()]
        return Candidates(
            self.scorer, texts, self.piece, self.targets[rows.owner], self.language.vocabulary
        )


class KVCache:
    """The unguided context of every row, carried from call to call: one new token is read a step.

    Samples share a prompt, so its context is read once and repeated.
    """

    def __init__(self, language: LanguageModel) -> None:
        self._language = language
        self._context: Latent = {}

    def advance(self, rows: Rows) -> tuple[Latent, LanguageModelOutput]:
        """The context before each row's last token, and the plain reading of that token."""
        last = rows.tokens[:, -1:]
        if rows.index == 0:
            past = self._read_prompts(rows.tokens)
        else:
            past = {name: leaf[rows.parent] for name, leaf in self._context.items()}
        with torch.no_grad():
            reading = self._language.read(last, past)
        self._context = reading.context
        return past, reading

    def _read_prompts(self, tokens: Tensor) -> Latent:
        prompts, place = torch.unique(tokens, dim=0, return_inverse=True)
        if prompts.shape[1] < 2:
            return {}
        with torch.no_grad():
            context = self._language.read(prompts[:, :-1]).context
        return {name: leaf[place] for name, leaf in context.items()}


@dataclass
class ZeroCap:
    """Proposes next tokens after moving the keys and values of all earlier ones.

    Each step starts from a shift of zero, takes ``iterations`` normalised gradient steps on the
    ``objective`` (a sum of losses over words), shapes the logits, and mixes the guided p with the
    plain q: log r = ``fusion`` * log p + (1 - ``fusion``) * log q, normalised over one ``whole``.

    Probabilities of a step sum to one even where every word that may follow is wrong, so a beam
    could hide a mistake in what it said before.  With a ``weight`` only the ``candidates`` that are
    likeliest without guidance are kept, and beams are also ranked by ``weight`` times the cosine of
    all they say.

    Source: Tewel et al. 2022 (ZeroCap), section 3.
    """

    models: CaptionModels
    objective: Objective
    logits_processors: LogitsProcessors
    iterations: int = 5
    rate: float = 0.3
    power: float = 0.9
    fusion: float = 0.99
    whole: Whole = "beam"
    candidates: int = 512
    weight: float = 0.0

    def __post_init__(self) -> None:
        self._memory = KVCache(self.models.language)

    def propose(self, rows: Rows) -> Proposal:
        """The fused log-probabilities [R, V] of each row's next token.

        Raises:
            UsageError: rows of one token, which leave no context to move.
            CannotDo: a loss or gradient that is not finite.
        """
        past, reading = self._memory.advance(rows)
        if not past:
            raise UsageError(
                "There is no prompt, so there is no context that could be moved.",
                hint="Give a prompt of at least one word, or use the method 'fuse'.",
            )
        plain = torch.log_softmax(reading.logits, dim=-1)
        words = self.models.candidates(rows)
        logits, losses = self._move(rows, past, plain, words)
        fused = fuse(
            torch.log_softmax(self.logits_processors(logits, rows), dim=-1), plain, self.fusion
        )
        ranks = normalize(fused, rows.owner, self.whole)
        merit = merits(words, plain, self.candidates, self.weight) if self.weight else None
        return Proposal(ranks, merit, losses)

    def _move(
        self, rows: Rows, past: Latent, plain: Tensor, words: Candidates
    ) -> tuple[Tensor, dict[str, float]]:
        """The logits [R, V] after the context was moved, and the losses before the last move."""
        last = rows.tokens[:, -1:]

        def draw(shift: Latent, progress: float) -> TextCandidate:
            def think() -> Tensor:
                moved = {name: leaf + shift[name] for name, leaf in past.items()}
                return self.models.language.read(last, moved).logits

            return TextCandidate(think, plain, progress)

        zeros = {name: torch.zeros_like(leaf) for name, leaf in past.items()}
        scene = LossContext(
            scorer=None,
            prompts=(),
            start=Candidate(zeros, _no_picture),
            models={"continuations": words},
        )
        bound = self.objective.bind(scene, modalities=("text",))
        draft = draw(zeros, 0.0)
        losses: dict[str, float] = {}
        update = zerocap_steps(self.rate, self.power)
        for step in optimise(zeros, draw, bound, update, self.iterations, label="word"):
            assert isinstance(step.draft, TextCandidate)
            draft, losses = step.draft, dict(step.losses)
        with torch.no_grad():
            return draft.logits, losses


@dataclass
class Fuse:
    """Proposes next tokens without gradients: log q + ``weight`` * cosine / temperature.

    Only the ``candidates`` likeliest tokens are scored, all others are barred.  The cosine is of
    the whole text so far, so it is a merit of the beam and does not add up along it: a beam's
    score is its mean log q plus ``weight`` times the cosine of what it says.
    """

    models: CaptionModels
    logits_processors: LogitsProcessors
    candidates: int = 128
    weight: float = 20.0

    def __post_init__(self) -> None:
        self._memory = KVCache(self.models.language)

    @torch.no_grad()
    def propose(self, rows: Rows) -> Proposal:
        """Plain log-probabilities [R, V] and the merit of each candidate."""
        _, reading = self._memory.advance(rows)
        shaped = torch.log_softmax(self.logits_processors(reading.logits, rows), dim=-1)
        merit = merits(self.models.candidates(rows), shaped, self.candidates, self.weight)
        best = merit.max(dim=1).values.mean() / self.weight if self.weight else 0.0
        return Proposal(shaped, merit, {"clip": float(best)})


def merits(words: Candidates, log_probabilities: Tensor, count: int, weight: float) -> Tensor:
    """``weight`` * cosine of the ``count`` likeliest continuations of each row, -inf for others."""
    tokens = log_probabilities.topk(min(count, log_probabilities.shape[1])).indices
    barred = torch.full_like(log_probabilities, float("-inf"))
    return barred.scatter(1, tokens, weight * words.cosines(tokens))


def fuse(guided: Tensor, plain: Tensor, share: float) -> Tensor:
    """share * guided + (1 - share) * plain of log-probabilities [R, V]; 0 * -inf counts as 0."""
    if share == 1:
        return guided
    if share == 0:
        return plain
    return share * guided + (1 - share) * plain


def normalize(values: Tensor, owner: Tensor, whole: Whole) -> Tensor:
    """Log-probabilities [R, V] that sum to one over each row, or over all rows of an owner [R].

    The latter is what the reference does within a batch: each row then carries about
    -log(number of beams) a step, which shortens captions.
    """
    sums = torch.logsumexp(values, dim=-1)
    if whole == "beam":
        return values - sums.unsqueeze(-1)
    same = owner.unsqueeze(0) == owner.unsqueeze(1)
    table = torch.where(same, sums.unsqueeze(0), float("-inf"))
    return values - torch.logsumexp(table, dim=1, keepdim=True)


def _no_picture(latent: Latent) -> Tensor:
    raise CannotDo("A loop over words has no picture.")
