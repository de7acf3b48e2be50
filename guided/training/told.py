"""What trainings share that denoise what a caption tells: the frozen CLIP's words, noise levels."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from guided.core.device import Device
from guided.generators.diffusion_words import Words, read_words, text_encoder_of
from guided.portraits.captions import caption
from guided.scorers.clip import ClipScorer
from guided.training.clip_pairs import person_of
from guided.training.frozen import frozen_scorer, placed
from guided.training.objective import Objective, Share
from guided.training.world_data import Drawn

_NEGATION = 0.15
BatchT = TypeVar("BatchT")


class ToldObjective(Objective[BatchT]):
    """An objective whose settings name a ``scorer`` and its precision ``frozen``."""

    own_data = "the drawn world"

    @abstractmethod
    def kept(self) -> Tensor:
        """The share of signal in the square, [T], of each time step: ``alphas_cumprod``."""

    @cached_property
    def place(self) -> Device:
        """Where the frozen models are."""
        return placed(self.around.device, self.settings.frozen)

    @cached_property
    def scorer(self) -> ClipScorer:
        """The CLIP that reads words and pictures."""
        return frozen_scorer(self.settings.scorer, self.place)

    @cached_property
    def reader(self) -> tuple[Any, Any]:
        """Its text tower token by token, and a tokenizer of its own.

        A tokenizer keeps how it pads; one that is shared may not be set another way by the
        monitor while batches are being prepared.
        """
        shared: Any = self.scorer.texts.tokenizer
        tokenizer = copy.deepcopy(shared.tokenizer)
        encoder = text_encoder_of(self.scorer.model, int(tokenizer.eos_token_id))
        return self.place.settle(encoder), tokenizer

    @cached_property
    def levels(self) -> tuple[Tensor, Tensor]:
        """The parts [T] of signal and of noise at each time step."""
        kept = self.kept().double()
        return kept.sqrt().float(), (1 - kept).sqrt().float()

    def read(self, texts: Sequence[str]) -> Words:
        """Texts as the model is told them."""
        return read_words(*self.reader, texts)

    def times(self, share: Share, stream: torch.Generator) -> Tensor:
        """Time steps [n] int64: each row of the whole batch from its own part of the schedule."""
        count = len(self.levels[0])
        places = (torch.randperm(share.size, generator=stream)
                  + torch.rand(share.size, generator=stream)) / share.size  # fmt: skip
        return (places * count).long().clamp(max=count - 1)[share.rows]

    def words(self, labels: Drawn, silent: Sequence[bool], share: Share) -> Words:
        """A fresh caption of each of this process's rows, or the empty text."""
        texts = []
        for row in range(*share.rows.indices(len(silent))):
            rng = np.random.default_rng([share.number("captions"), row])
            said = caption(person_of(labels.codes[row]), rng, negation=_NEGATION).text
            texts.append("" if silent[row] else said)
        return self.read(texts)

    def hidden(self, name: str, parameter: nn.Parameter) -> bool:
        """The matrices inside the transformer's blocks."""
        return "transformer_blocks" in name and name.endswith("weight") and parameter.ndim == 2
