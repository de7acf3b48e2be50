"""Texts to id sequences that end at the pooled token, tokenised whole or, where safe, by words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from guided.scorers.prefix_tower import CausalTower

Tokenize = Callable[[list[str]], Tensor]
Ids = tuple[int, ...]

#: Text before a blank, and a word with its blank, between which every known tokenizer splits and
#: which no cleaning changes.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,.'-]*[A-Za-z,.]|[A-Za-z]")
_WORD = re.compile(r" [A-Za-z,.'-]+")


class Texts:
    """The ids of texts up to the token where the tower pools; all ids for other towers.

    Tokenisers cost as much as a small tower, so the ids of a text are put together from those of
    its last word and of what comes before, where that is known to equal tokenising the whole:
    both are plain letters and punctuation, and the tokenizer splits at the blank between.
    """

    def __init__(self, tokenize: Tokenize, tower: CausalTower | None) -> None:
        self.tokenize = tokenize
        self.tower = tower
        self._longest = 0 if tower is None else tower.places.shape[0]
        self._unpadded = None if tower is None else _unpadded(tokenize, tower)
        self._prefixes: dict[str, Ids] = {}
        self._words: dict[str, Ids | None] = {}
        self._splits = tower is not None and _splits_at_blanks(tokenize) and self._adds_up()

    def _adds_up(self) -> bool:
        """Whether the ids of words put together are those of the whole, for a few samples."""
        before = len(self.prefix("a"))
        for prefix, word in (("a", " b"), ("It's red", " Also"), ("a-b,", " OK"), ("no", " dogs")):
            start, tail = self.prefix(prefix), self._encode([f"a{word}"])[0][before:]
            if len(start) + len(tail) > self._longest:
                continue
            if start + tail != self._encode([prefix + word])[0]:
                return False
        return True

    def prefix(self, text: str) -> Ids:
        """The ids of a text before its end token."""
        found = self._prefixes.get(text)
        if found is None:
            if len(self._prefixes) > 10_000:
                self._prefixes.clear()
            found = self._prefixes[text] = self._encode([text])[0][:-1]
        return found

    def rows(self, prefixes: Sequence[str], endings: Sequence[Sequence[str]]) -> list[list[Ids]]:
        """The ids of each prefix continued by each of its endings."""
        rows: list[list[Ids | None]] = []
        whole: list[tuple[int, int, str]] = []
        for row, (prefix, several) in enumerate(zip(prefixes, endings, strict=True)):
            rows.append(self._composed(prefix, several))
            whole.extend(
                (row, place, prefix + several[place])
                for place, ids in enumerate(rows[-1])
                if ids is None
            )
        for (row, place, _), ids in zip(whole, self._encode([t for *_, t in whole]), strict=True):
            rows[row][place] = ids
        return [[ids for ids in row if ids is not None] for row in rows]

    def _composed(self, prefix: str, endings: Sequence[str]) -> list[Ids | None]:
        """Ids put together from a plain text and its last word; None where that is not safe."""
        if not self._splits:
            return [None] * len(endings)
        cut = max(prefix.rfind(" "), 0)
        stem = prefix[cut:]
        whole, headless = self._start(prefix), self._start(prefix[:cut])
        found: list[Ids | None] = []
        self._learn([e if e.startswith(" ") else stem + e for e in endings])
        for ending in endings:
            apart = ending.startswith(" ")
            start = whole if apart else headless
            tail = self._words[ending if apart else stem + ending]
            if start is None or tail is None or len(start) + len(tail) > self._longest:
                found.append(None)
            else:
                found.append(start + tail)
        return found

    def _start(self, text: str) -> Ids | None:
        """The ids of a text before its end token, if it is plain."""
        return self.prefix(text) if _PLAIN.fullmatch(text) else None

    def _learn(self, words: Sequence[str]) -> None:
        """Keep the ids of plain words with their end token, and that others are not plain."""
        if len(self._words) > 200_000:
            self._words.clear()
        new = [word for word in dict.fromkeys(words) if word not in self._words]
        plain = [word for word in new if _WORD.fullmatch(word)]
        self._words.update(dict.fromkeys(new))
        before = len(self.prefix("a"))
        for word, ids in zip(plain, self._encode([f"a{word}" for word in plain]), strict=True):
            self._words[word] = ids[before:]

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of whole texts."""
        if not texts:
            return []
        if self._unpadded is not None:
            return self._unpadded(texts)
        ids = self.tokenize(list(texts))
        if self.tower is None:
            return [tuple(row) for row in ids.tolist()]
        ends = self.tower.ends(ids).tolist()
        return [tuple(row[: end + 1]) for row, end in zip(ids.tolist(), ends, strict=True)]


def _unpadded(tokenize: Any, tower: CausalTower) -> Callable[[Sequence[str]], list[Ids]] | None:
    """The same ids without padding every text to the context, where the tokenizer's kind is known.

    Padding and its conversion to tensors cost transformers' tokenizers more than reading a text.
    """
    inner: Any = getattr(tokenize, "tokenizer", None)
    clean: Any = getattr(tokenize, "clean_fn", None)
    special = getattr(tokenize, "tokenizer_mode", None) or getattr(tokenize, "strip_sep_token", 0)
    if not getattr(inner, "is_fast", False) or clean is None or special or tower.pool == "argmax":
        return None

    def encode(texts: Sequence[str]) -> list[Ids]:
        rows = inner([clean(text) for text in texts], max_length=tokenize.context_length,
                     truncation=True, return_attention_mask=False)["input_ids"]  # fmt: skip
        ends = [row.index(tower.end) if tower.end in row else 0 for row in rows]
        return [tuple(row[: end + 1]) for row, end in zip(rows, ends, strict=True)]

    return encode


def _splits_at_blanks(tokenize: Any) -> bool:
    """Whether a tokenizer is known to treat plain words apart and to add nothing but end tokens.

    Known are open_clip's byte-pair tokenizer, and transformers' ones whose pre-tokenizer is the
    byte-level one.
    """
    if getattr(tokenize, "reduction_fn", None) is not None:
        return False
    if hasattr(tokenize, "bpe_ranks"):
        return True
    inner = getattr(getattr(tokenize, "tokenizer", None), "backend_tokenizer", None)
    mode = getattr(tokenize, "tokenizer_mode", None)
    if inner is None or mode:
        return False
    kind = type(inner.pre_tokenizer).__name__
    added = any(text.strip().isalpha() for text in tokenize.tokenizer.get_added_vocab())
    return kind == "ByteLevel" and bool(inner.pre_tokenizer.use_regex) and not added
