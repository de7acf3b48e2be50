"""Marks that are read as plain words: those of other tools, and weights where none are read."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WEIGHTS = "weights stand behind a part of the prompt: 'TEXT | OTHER TEXT::1.3'"
_LOADED = "it loads no weights; a model is chosen by options, such as --denoiser. Leave it out"
_APART = (
    "the parts of a prompt stand apart by '|', each with a weight if wanted: 'TEXT | TEXT::0.5'"
)
#: What is looked for, what it is called, and what to write instead; the first that fits a place.
_SYNTAX = (
    (re.compile(r"<\s*(?:lora|lyco|lycoris|hypernet|embedding)\s*:[^<>]{0,200}>", re.I), _LOADED),
    (re.compile(r"\((?:[^()\[\]]{1,200}):\s*[-+]?[0-9]*\.?[0-9]+\s*\)"), _WEIGHTS),
    (re.compile(r"\[(?:[^()\[\]]{1,200}):\s*[0-9]*\.?[0-9]+\s*\]"), _WEIGHTS),
    (re.compile(r"\({2,8}[^()]{1,200}\){2,8}"), _WEIGHTS),
    (re.compile(r"\[{1,8}[^\[\]]{1,200}\]{1,8}"), _WEIGHTS),
    (re.compile(r"(?<![\w'-])BREAK(?![\w'-])"), f"{_APART}; for long texts: --long-text windows"),
    (re.compile(r"(?<![\w'-])AND(?![\w'-])"), _APART),
)  # fmt: skip
_SHOUTED = re.compile(r"[a-z]")


def weights_unread(texts: Iterable[str], instead: str) -> list[str]:
    """A sentence that names the first text with '|' or '::' where no weights are read, if any, and
    what to do ``instead``."""
    for text in texts:
        if "|" in text or "::" in text:
            shown = text if len(text) <= 40 else text[:37] + "..."
            return [f"'|' and '::' are read as plain words here, in {shown!r}: {instead}."]
    return []


def foreign_syntax(texts: Iterable[str]) -> list[str]:
    """A sentence for each kind of syntax of other tools in the texts: the first of its kind, and
    what to write instead.

    >>> foreign_syntax(["a cat, (a hat:1.3)"])[0].partition(":")[0]
    "'(a hat"
    """
    met: dict[str, str] = {}
    for text in texts:
        rest = text
        for pattern, instead in _SYNTAX:
            match = pattern.search(rest)
            if match is None:
                continue
            shown = match[0]
            if shown in ("AND", "BREAK") and not _SHOUTED.search(text):
                continue  # a text that is all in capitals
            rest = pattern.sub(" ", rest)
            met.setdefault(instead, shown if len(shown) <= 40 else shown[:37] + "...")
    return [
        f"{shown!r} is the syntax of other tools and is read as plain words here: {instead}."
        for instead, shown in met.items()
    ]
