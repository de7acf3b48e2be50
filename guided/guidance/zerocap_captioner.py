"""Captions of many targets at once, streamed word by word."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from guided.core.objective import Objective
from guided.core.run import Step
from guided.errors import UsageError
from guided.guidance.decode import Beams, Guide, Search, decode
from guided.guidance.decode_shaping import Factors, Nats, Shaping
from guided.guidance.zerocap import Fuse, Voice, ZeroCap
from guided.guidance.zerocap_sentences import Ranking, Rates, Sentence, TextScorer, sentences

Mode = Literal["optimise", "fuse"]


class WordScorer(TextScorer, Protocol):
    """Embeds texts and their continuations, keeping what it can reuse."""

    def embed_endings(
        self, prefixes: Sequence[str], endings: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        """Unit vectors of every prefix continued by its endings."""
        ...

    def forget(self) -> None:
        """Drop what is kept, so that results cannot depend on earlier calls."""
        ...


@dataclass(frozen=True)
class Manner:
    """How captions are written.

    ``end`` is the token that ends a sentence and ``forbidden`` the tokens no caption wants.  The
    settings from ``iterations`` to ``merit`` belong to mode ``optimise``, ``weight`` to ``fuse``:
    both are the cosine's weight in the rank of a beam.  ``fluency`` and ``unfinished`` belong to
    the rank of what was written.  With ``reference`` the factors act on raw logits, probabilities
    are normalised over all beams of a picture and finished beams are computed, as the paper's code
    does; otherwise a picture's captions depend on nothing else in the batch.
    """

    prompt: str
    end: int
    forbidden: tuple[int, ...] = ()
    mode: Mode = "optimise"
    reference: bool = False
    beams: int = 5
    length: int = 15
    shortest: int = 3
    end_bonus: float = 1.0
    end_factor: float = 1.01
    repetition: float = 0.0
    repetition_penalty: float = 1.0
    iterations: int = 5
    rate: float = 0.3
    power: float = 0.9
    fusion: float = 0.99
    merit: float = 0.0
    candidates: int = 128
    weight: float = 20.0
    fluency: float = 0.01
    unfinished: float = 0.0


@dataclass(frozen=True)
class Told:
    """What is said so far: for each sample the texts of its beams, the best first."""

    texts: tuple[tuple[str, ...], ...]


class Narrator:
    """Writes captions with one language model and one scorer of words.

    ``piece`` gives the text of one token.
    """

    def __init__(self, language: Rates, scorer: WordScorer, piece: Callable[[int], str]) -> None:
        self._language = language
        self._scorer = scorer
        self._piece = piece

    def write(
        self, targets: Tensor, manner: Manner, objective: Objective
    ) -> Generator[Step[Told], None, list[list[Sentence]]]:
        """Yield a Step after each word; return each target's distinct sentences, the best first.

        ``targets`` [S, D] are unit vectors; ``objective`` sums losses over words (mode
        ``optimise`` alone looks at it).

        Raises:
            UsageError: a prompt that is empty or too long, no beams, no words to write.
            CannotDo: a loss or gradient that is not finite.
        """
        prompt = self._prompt(manner)
        search = Search(
            manner.beams, manner.length, manner.end, keep_finished=manner.reference,
            pad=0 if manner.reference else manner.end,
        )  # fmt: skip
        search.check()
        self._scorer.forget()
        silent = manner.end == self._language.begin

        def piece(token: int) -> str:
            return "" if silent and token == manner.end else self._piece(token)

        voice = Voice(self._language, self._scorer, targets, piece)
        prompts = torch.tensor([prompt] * len(targets), device=targets.device)
        beams: Beams | None = None
        for step in decode(prompts, guide(voice, manner, objective), search):
            beams = step.draft
            assert beams is not None
            told = Told(self._texts(beams.ranked(), manner, silent=silent))
            yield Step(step.index, step.total, "caption", step.losses, told)
        assert beams is not None
        ranking = Ranking(
            manner.fluency, with_prompt=not manner.reference, by_beam=manner.reference,
            unfinished=manner.unfinished,
        )  # fmt: skip
        return sentences(beams, self._language, self._scorer, targets, manner.end, ranking)

    def _prompt(self, manner: Manner) -> list[int]:
        """The prompt's tokens after the begin token."""
        words = self._language.encode(manner.prompt)
        if not words and manner.mode == "optimise":
            raise UsageError(
                "The prompt is empty, so there is no context that could be moved.",
                hint="Give a prompt of at least one word, or use --mode fuse.",
            )
        room = self._language.positions - manner.length - 1
        if len(words) > room:
            raise UsageError(
                f"The prompt has {len(words)} tokens; with {manner.length} tokens to write, "
                f"{self._language.name!r} has room for {max(room, 0)}.",
                hint="Give a shorter prompt or a smaller length.",
            )
        return [self._language.begin, *words]

    def _texts(self, beams: Beams, manner: Manner, *, silent: bool) -> tuple[tuple[str, ...], ...]:
        samples, width = beams.stopped.shape
        found = []
        for sample in range(samples):
            written = [beams.written(sample, beam) for beam in range(width)]
            if silent:
                written = [[t for t in row if t != manner.end] for row in written]
            found.append(tuple(f"{manner.prompt}{self._language.decode(row)}" for row in written))
        return tuple(found)


def guide(voice: Voice, manner: Manner, objective: Objective) -> Guide:
    """What proposes the next words in this manner."""
    if manner.mode == "fuse":
        return Fuse(voice, _shaping(manner), manner.candidates, manner.weight)
    return ZeroCap(
        voice,
        objective,
        _shaping(manner),
        iterations=manner.iterations,
        rate=manner.rate,
        power=manner.power,
        fusion=manner.fusion,
        whole="sample" if manner.reference else "beam",
        candidates=manner.candidates,
        weight=0.0 if manner.reference else manner.merit,
    )


def _shaping(manner: Manner) -> Shaping:
    if manner.reference:
        return Factors(
            manner.end,
            manner.forbidden,
            end_factor=manner.end_factor,
            repetition=manner.repetition_penalty,
        )
    return Nats(
        manner.end,
        manner.forbidden,
        end_bonus=manner.end_bonus,
        repetition=manner.repetition,
        shortest=manner.shortest,
    )
