"""Texts to embeddings through any open_clip text tower, without computing the padding.

A tower that is causal and pools at the end token gives the same result when its input is cut
behind the last end token: what follows is never looked at.  Whether a tower is of that kind is
read from its parts and then measured once; every other tower (SigLIP, for one, looks at its
padding) runs at full length.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from guided.core.long_texts import Cut, LongText, cut_of, is_longer, report_long, windows
from guided.core.offload import execution_device
from guided.errors import ShapeError
from guided.nets.clip_text import encode_causal, end_positions, is_causal

logger = logging.getLogger(__name__)

_SHOWN = 2
_PROBES = ("a", "a photo of a dog", "two people in red hats walking on the beach at night")
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9, torch.bfloat16: 3e-2, torch.float16: 4e-3}


class Tokenizer(Protocol):
    """What ``open_clip.get_tokenizer`` returns."""

    context_length: int

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """Token ids [N, context_length]."""
        ...


class TextTower:
    """The text half of an open_clip model.

    ``model`` is an open_clip CLIP (or CustomTextCLIP), ``tokenizer`` its own tokenizer.  Whether
    texts are cut to their real length (``trims``) is decided at the first use.  A text beyond the
    context is cut, or with ``long_text`` "windows" read in parts, whose embeddings are averaged.
    The log names what is cut.
    """

    long_text: LongText = "cut"

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, batch: int = 64) -> None:
        self._model = model
        self._named: set[str] = set()
        self._tokenizer = tokenizer
        self._batch = batch
        self._short: Callable[[Tensor], Tensor] | None = None
        self._measured = False
        self.context_length = int(tokenizer.context_length)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        return self._tokenizer

    @property
    def trims(self) -> bool:
        """True where the tower was found to give the same embedding without padding."""
        self._measure()
        return self._short is not None

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids [N, context_length] as the model's own tokenizer gives them."""
        return self._tokenizer(list(texts)).long()

    def cuts(self, texts: Sequence[str]) -> list[Cut]:
        """The texts that are longer than the model can read, where they are cut."""
        if self.long_text == "windows":
            return []
        each = (cut_of(text, self._count, self.context_length) for text in dict.fromkeys(texts))
        return [cut for cut in each if cut is not None]

    def _count(self, text: str) -> int:
        """How many tokens a text has, by the same tokenizer with a context that none can fill."""
        return self._length(self._tokenizer([text], 2 * len(text.encode()) + 8)[0])

    @staticmethod
    def _length(ids: Tensor) -> int:
        """The number of tokens before the padding, which is the constant end of the row."""
        changes = torch.nonzero(ids != ids[-1]).flatten()
        return int(changes[-1]) + 1 if len(changes) else 1

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D], float32, of texts; a text given twice is computed once.

        A text that is too long is cut by the tokenizer, and the log names the first of them.  In
        windows its embedding is the mean of theirs, each weighed by its tokens.

        Raises:
            ShapeError: no text.
            UsageError: a text of too many windows.
        """
        if isinstance(texts, str) or not len(texts):
            raise ShapeError("texts must be a list of at least one text.")
        if self.long_text == "windows":
            return self._in_windows(texts)
        self._name_cuts(texts)
        return self._embed(texts)

    def report(self, captions: Sequence[str]) -> None:
        """Name captions that will be cut in one line for all of them, and none of them again."""
        self._named.update(report_long(captions, self._count, self.context_length))

    def _name_cuts(self, texts: Sequence[str]) -> None:
        """Name the first of the texts that are cut and how many more there are; each text once."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._named]
        long = [text for text in fresh if is_longer(text, self._count, self.context_length)]
        for cut in self.cuts(long[:_SHOWN]):
            logger.warning("%s", cut)
        if len(long) > _SHOWN:
            logger.warning("%d more texts were too long and were cut.", len(long) - _SHOWN)
        self._named.update(long)

    def _in_windows(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of texts that are read in windows."""
        parts = [windows(text, self._count, self.context_length) for text in texts]
        features = self._embed([part for each in parts for part in each])
        if len(features) == len(texts):
            return features
        empty, rows = self._count(""), []
        for own, each in zip(
            parts, torch.split(features, [len(own) for own in parts]), strict=True
        ):
            sizes = [max(1, self._count(part) - empty) for part in own]
            weights = each.new_tensor(sizes) / sum(sizes)
            rows.append(each[0] if len(own) == 1 else weights @ each)
        return functional.normalize(torch.stack(rows), dim=-1)

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of texts, what is too long cut."""
        unique = list(dict.fromkeys(texts))
        self._measure()
        ids = self.tokens(unique)
        lengths = torch.tensor([self._reach(row) for row in ids])
        order = torch.argsort(lengths, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        parts = []
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            longest = int(lengths[rows].max()) if self._short is not None else ids.shape[1]
            parts.append(self._encode(ids[rows, :longest]))
        seen = {text: row for row, text in enumerate(unique)}
        features = torch.cat(parts)
        wanted = place[torch.tensor([seen[text] for text in texts])]
        return functional.normalize(features[wanted.to(features.device)].float(), dim=-1)

    def _reach(self, ids: Tensor) -> int:
        """Where a row may be cut: behind its end token."""
        if self._short is None:
            return len(ids)
        return int(end_positions(self._parts(), ids[None])[0]) + 1

    def _parts(self) -> Any:
        """The module that holds the token embedding, the blocks and the projection."""
        return getattr(self._model, "text", self._model)

    def _encode(self, ids: Tensor) -> Tensor:
        ids = ids.to(execution_device(self._model))
        if self._short is not None:
            return self._short(ids)
        model: Any = self._model
        features: Tensor = model.encode_text(ids)
        return features

    @torch.no_grad()
    def _measure(self) -> None:
        """Compare the short way with the whole one on three texts, once."""
        if self._measured:
            return
        self._measured = True
        parts = self._parts()
        if not is_causal(parts):
            return
        ids = self.tokens(_PROBES)
        whole = functional.normalize(self._encode(ids).float(), dim=-1)
        longest = int(end_positions(parts, ids).max()) + 1
        device_ids = ids[:, :longest].to(whole.device)
        short = functional.normalize(encode_causal(parts, device_ids).float(), dim=-1)
        gap = float((whole - short).abs().max())
        allowed = _TOLERANCE[parts.token_embedding.weight.dtype]
        if gap <= allowed:
            self._short = lambda ids: encode_causal(parts, ids)
        else:
            logger.info("texts run at full length: cutting them changes features by %.2g", gap)
