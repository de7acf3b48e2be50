"""Texts that are longer than a model's context: what of them is lost, and their windows.

A model reads so many tokens of a text at once, its context.  By default ("cut") the rest of a
longer one is left out, and named.  In "windows" the text is read in parts of the context, each as
many whole words as fit, which whoever encodes them puts together.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from guided.core.listing import few
from guided.errors import UsageError

logger = logging.getLogger(__name__)

LongText = Literal["cut", "windows"]
Count = Callable[[str], int]
"""The number of a text's tokens, those of its begin and end included."""

LONG_TEXT_HELP = (
    "texts beyond a model's context: cut (the rest is left out, and named) or windows (read in "
    "parts)"
)
MOST_WINDOWS = 32
"""Windows of one text at most."""
_NAMED = 3
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Cut:
    """A text that did not fit: its length in tokens, how many are read, and the words lost."""

    text: str
    tokens: int
    limit: int
    lost: str
    reader: str = "scorer"

    def __str__(self) -> str:
        return (
            f"The text {_short(self.text)!r} ({len(self.text)} characters) has {self.tokens} "
            f"tokens; this {self.reader} reads {self.limit}: the rest was left out, "
            f"{_short(self.lost)!r}. To read all of it: --long-text windows."
        )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def is_longer(text: str, count: Count, limit: int) -> bool:
    """Whether a text has more than ``limit`` tokens; a token is a byte at least."""
    return len(text.encode("utf-8", "replace")) + 2 >= limit and count(text) > limit


def cut_of(text: str, count: Count, limit: int, reader: str = "scorer") -> Cut | None:
    """What of a text is beyond ``limit`` tokens; None where it fits."""
    if not is_longer(text, count, limit):
        return None
    return Cut(text, count(text), limit, split(text, count, limit)[1], reader)


def report_long(texts: Sequence[str], count: Count, limit: int) -> list[str]:
    """The texts with more than ``limit`` tokens, which one line of the log names, with the words
    that the first of them lose."""
    long = [text for text in dict.fromkeys(texts) if is_longer(text, count, limit)]
    if long:
        cuts = filter(None, (cut_of(text, count, limit) for text in long[:_NAMED]))
        logger.warning(
            "%d captions are longer than the context of %d tokens and are cut: %s",
            len(long), limit,
            few([f"{_short(cut.text)!r} (lost: {_short(cut.lost)!r})" for cut in cuts]
                + long[_NAMED:], _NAMED),
        )  # fmt: skip
    return long


def split(text: str, count: Count, limit: int) -> tuple[str, str]:
    """The longest beginning of whole words that fits ``limit`` tokens, and the rest.

    A word that does not fit alone is parted between its characters.  Either may be empty, but the
    first only where the text is.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    if not words:
        return text, ""
    fits = _most(len(words), lambda n: count(text[: words[n - 1][1]]) <= limit)
    if fits == len(words):
        return text, ""
    end = words[fits - 1][1]
    if not fits:
        first, last = words[0]
        end = first + max(1, _most(last - first, lambda n: count(text[: first + n]) <= limit))
    return text[:end], text[end:].lstrip()


def _most(total: int, fits: Callable[[int], bool]) -> int:
    """The most of ``total`` that fits (0: not even one), looking at few beyond it."""
    low, high = 0, 1
    while high < total and fits(high):
        low, high = high, 2 * high
    high = min(high, total) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def windows(text: str, count: Count, limit: int) -> list[str]:
    """The text in parts of at most ``limit`` tokens each, one where it fits.

    Raises:
        UsageError: more than ``MOST_WINDOWS``.
    """
    parts = []
    for part in _parts(text, count, limit):
        parts.append(part)
        if len(parts) > MOST_WINDOWS:
            raise UsageError(
                f"The text {_short(text)!r} ({len(text)} characters) is longer than "
                f"{MOST_WINDOWS} windows of {limit} tokens.",
                hint="Give a shorter one, or leave --long-text out to have it cut.",
            )
    return parts


def _parts(text: str, count: Count, limit: int) -> Iterator[str]:
    rest = text
    while True:
        part, rest = split(rest, count, limit)
        yield part
        if not rest:
            return
