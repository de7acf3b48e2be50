"""Captions of many targets at once, streamed word by word."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from guided.core.objective import Objective
from guided.core.run import Step
from guided.errors import UsageError
from guided.guidance.decode import Beams, Guide, Search, decode
from guided.guidance.logits_processors import LogitBias, LogitScale, LogitsProcessors
from guided.guidance.zerocap import CaptionModels
from guided.guidance.zerocap_sentences import Ranking, Rates, Sentence, TextScorer, sentences


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


class NextToken(Protocol):
    """What ``guided.captioning`` has a file each of."""

    needs_context: ClassVar[bool]

    def guide(self, models: CaptionModels, config: CaptionConfig, objective: Objective) -> Guide:
        """What proposes the next tokens."""
        ...


@dataclass(frozen=True)
class CaptionConfig:
    """How captions are written, whatever proposes their words.

    ``end`` is the token that ends a sentence and ``forbidden`` the tokens no caption wants;
    ``fluency`` and ``unfinished`` belong to the rank of what was written.  With ``reference`` the
    factors act on raw logits, probabilities are normalised over all beams of an image and finished
    beams are computed, as the paper's code does; otherwise an image's captions depend on nothing
    else in the batch.
    """

    prompt: str
    end: int
    forbidden: tuple[int, ...] = ()
    reference: bool = False
    beams: int = 5
    length: int = 15
    shortest: int = 3
    end_bonus: float = 1.0
    end_factor: float = 1.01
    repetition: float = 0.0
    repetition_penalty: float = 1.0
    fluency: float = 0.01
    unfinished: float = 0.0

    @property
    def logits_processors(self) -> LogitsProcessors:
        """What shapes the logits of each word."""
        if self.reference:
            return LogitScale(
                self.end,
                self.forbidden,
                end_factor=self.end_factor,
                repetition=self.repetition_penalty,
            )
        return LogitBias(
            self.end,
            self.forbidden,
            end_bonus=self.end_bonus,
            repetition=self.repetition,
            shortest=self.shortest,
        )


@dataclass(frozen=True)
class PartialCaptions:
    """What is said so far: for each sample the texts of its beams, the best first."""

    texts: tuple[tuple[str, ...], ...]


class CaptionDecoder:
    """Writes captions with one language model and one scorer of words.

    ``piece`` gives the text of one token.
    """

    def __init__(self, language: Rates, scorer: WordScorer, piece: Callable[[int], str]) -> None:
        self._language = language
        self._scorer = scorer
        self._piece = piece

    def write(
        self, targets: Tensor, config: CaptionConfig, captioner: NextToken, objective: Objective
    ) -> Generator[Step[PartialCaptions], None, list[list[Sentence]]]:
        """Yield a Step after each word; return each target's distinct sentences, the best first.

        ``targets`` [S, D] are unit vectors; ``objective`` sums losses over words, for captioners
        that follow them.

        Raises:
            UsageError: a prompt that is empty or too long, no beams, no words to write.
            CannotDo: a loss or gradient that is not finite.
        """
        prompt = self._prompt(config, captioner)
        search = Search(
            config.beams, config.length, config.end, keep_finished=config.reference,
            pad=0 if config.reference else config.end,
        )  # fmt: skip
        search.check()
        self._scorer.forget()
        silent = config.end == self._language.begin

        def piece(token: int) -> str:
            return "" if silent and token == config.end else self._piece(token)

        models = CaptionModels(self._language, self._scorer, targets, piece)
        prompts = torch.tensor([prompt] * len(targets), device=targets.device)
        beams: Beams | None = None
        for step in decode(prompts, captioner.guide(models, config, objective), search):
            beams = step.draft
            assert beams is not None
            captions = PartialCaptions(self._texts(beams.ranked(), config, silent=silent))
            yield Step(step.index, step.total, "caption", step.losses, captions)
        assert beams is not None
        ranking = Ranking(
            config.fluency, with_prompt=not config.reference, by_beam=config.reference,
            unfinished=config.unfinished,
        )  # fmt: skip
        return sentences(beams, self._language, self._scorer, targets, config.end, ranking)

    def _prompt(self, config: CaptionConfig, captioner: NextToken) -> list[int]:
        """The prompt's tokens after the begin token."""
        words = self._language.encode(config.prompt)
        if not words and captioner.needs_context:
            raise UsageError(
                "The prompt is empty, so there is no context that could be moved.",
                hint="Give a prompt of at least one word, or use --method fuse.",
            )
        room = self._language.positions - config.length - 1
        if len(words) > room:
            raise UsageError(
                f"The prompt has {len(words)} tokens; with {config.length} tokens to write, "
                f"{self._language.name!r} has room for {max(room, 0)}.",
                hint="Give a shorter prompt or a smaller length.",
            )
        return [self._language.begin, *words]

    def _texts(
        self, beams: Beams, config: CaptionConfig, *, silent: bool
    ) -> tuple[tuple[str, ...], ...]:
        samples, width = beams.stopped.shape
        found = []
        for sample in range(samples):
            written = [beams.written(sample, beam) for beam in range(width)]
            if silent:
                written = [[t for t in row if t != config.end] for row in written]
            found.append(tuple(f"{config.prompt}{self._language.decode(row)}" for row in written))
        return tuple(found)
