"""Base of text-conditional denoising objectives: text encoder, noise levels, time steps."""

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
from guided.generators.diffusion.text import TextFeatures, encode_text, text_encoder_of
from guided.models.loading import load_scorer, placed
from guided.scorers.clip import ClipScorer
from guided.training.objective import BatchContext
from guided.training.pair_objective import PairObjective

BatchT = TypeVar("BatchT")


class ConditionalDenoisingObjective(PairObjective[BatchT]):
    """An objective whose settings name a ``scorer`` and its ``frozen_precision``."""

    @abstractmethod
    def alphas_cumprod(self) -> Tensor:
        """The share of signal in the square, [T], of each time step."""

    @cached_property
    def device(self) -> Device:
        """Where the frozen models are, and in which precision."""
        return placed(self.ctx.device, self.settings.frozen_precision)

    @cached_property
    def scorer(self) -> ClipScorer:
        """The CLIP that reads captions and images."""
        return load_scorer(self.settings.scorer, self.device)

    @cached_property
    def text_encoder(self) -> tuple[Any, Any]:
        """Its text tower token by token, and a tokenizer of its own.

        A tokenizer keeps how it pads; one that is shared may not be set another way by the
        monitor while batches are being prepared.
        """
        shared: Any = self.scorer.texts.tokenizer
        tokenizer = copy.deepcopy(getattr(shared, "tokenizer", shared))
        if self.ctx.data is not None:
            self.scorer.texts.report(self.dataset.corpus())
        encoder = text_encoder_of(self.scorer.model, int(tokenizer.eos_token_id))
        return self.device.prepare(encoder), tokenizer

    @cached_property
    def levels(self) -> tuple[Tensor, Tensor]:
        """The parts [T] of signal and of noise at each time step."""
        signal = self.alphas_cumprod().double()
        return signal.sqrt().float(), (1 - signal).sqrt().float()

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Texts as the model is conditioned on them."""
        return encode_text(*self.text_encoder, texts)

    def times(self, share: BatchContext, stream: torch.Generator) -> Tensor:
        """Time steps [n] int64: each row of the whole batch from its own part of the schedule."""
        count = len(self.levels[0])
        offsets = (torch.randperm(share.size, generator=stream)
                   + torch.rand(share.size, generator=stream)) / share.size  # fmt: skip
        return (offsets * count).long().clamp(max=count - 1)[share.rows]

    def conditioning(
        self, rows: np.ndarray, silent: Sequence[bool], share: BatchContext
    ) -> TextFeatures:
        """A caption of each of this process's rows of a whole batch, or the empty text."""
        texts = self.dataset.captions(rows, share)
        mine = silent[share.rows]
        return self.encode_text(
            ["" if none else text for text, none in zip(texts, mine, strict=True)]
        )

    def hidden(self, name: str, parameter: nn.Parameter) -> bool:
        """The matrices inside the transformer's blocks."""
        return "transformer_blocks" in name and name.endswith("weight") and parameter.ndim == 2
