"""Every error guided raises on purpose.

GuidedError
  UsageError        wrong arguments, missing options          (exit status 2)
  RecipeError       a recipe that cannot be understood        (exit status 2)
  ShapeError        a tensor of another shape or range
  ImageError        a picture that cannot be read
  MissingWeights    a model whose files are not here
  CorruptWeights    a weight file that fails its check
  UnsafeWeights     a weight file that would run code
  OutputError       a place that must not or cannot be written
  StoreError        a search index that cannot be used
  CannotDo          a request the chosen models cannot fulfil
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: Sentences of libraries that recommend to switch their safety off, or to trust a file.
_ADVICE = re.compile(
    r"weights_only|trust_remote_code|allow_pickle|safe_globals|use_safetensors|add_safe|unsafe"
    r"|arbitrary code|trust(ed|ing)?\b|do those steps|will likely succeed|custom code"
    r"|remote code|ignore_mismatched_sizes|low_cpu_mem_usage|resolve/main|Hub, make sure",
    re.IGNORECASE,
)


#: Characters of a message, and of a hint, at most: what passes on long lists stays readable.
LONGEST = 900


def _bounded(text: str) -> str:
    """The text, without its middle where it is too long: its end says what is allowed."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 305]} ... {text[-300:]}"


class GuidedError(Exception):
    """A failure with a readable message and, where there is one, the next thing to do.

    ``message`` says what was given and what is allowed; ``hint`` says what to do next; both are cut
    to ``LONGEST`` characters.  ``details`` are lines between the two, where there is a list.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "", details: Iterable[str] = ()) -> None:
        self.message = _bounded(message)
        super().__init__(self.message)
        self.hint = _bounded(hint)
        self.details = tuple(details)

    def __str__(self) -> str:
        if self.details:
            return "\n".join([self.message, *(f"  {line}" for line in self.details), self.hint])
        return f"{self.message} {self.hint}".strip()


class UsageError(GuidedError):
    """Arguments that do not fit the verb."""

    exit_status = 2


class RecipeError(GuidedError):
    """A recipe with an unknown key, a wrong type or a contradiction."""

    exit_status = 2


class ShapeError(GuidedError):
    """A tensor whose shape or range differs from what the function states."""


class ImageError(GuidedError):
    """A file or array that does not give a picture."""


class MissingWeights(GuidedError):
    """A model whose files are not on this computer."""


class CorruptWeights(GuidedError):
    """A weight file whose content differs from its card, or that cannot be parsed."""


class UnsafeWeights(GuidedError):
    """A weight file that holds more than tensors and plain values."""


class OutputError(GuidedError):
    """A file that cannot be written, or must not be, where it was asked for."""


class StoreError(GuidedError):
    """A search index that is absent, damaged or made with another model."""


class CannotDo(GuidedError):
    """A request that the chosen models cannot fulfil."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """A hint "Did you mean ...?" for a mistyped name, or the list of allowed names.

    >>> nearest("txt", ["text", "weight"])
    "Did you mean 'text'?"
    """
    names = [str(name) for name in allowed]
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Allowed: {', '.join(sorted(names))}." if names else ""


def library_message(error: BaseException, limit: int = 300) -> str:
    """What a library says went wrong, for a message of ours: one line, bounded, without advice.

    Sentences that recommend to load unsafely, or to trust a file, are left out; what is too long
    ends in "...".  Where nothing remains it is the error's class.

    >>> library_message(ValueError("It is damaged. Try it without weights_only."))
    'It is damaged'
    """
    text = str(error)[: 64 * limit]
    sentences = re.split(r"(?<=[.!?;])\s+|\n+", text)
    plain = [" ".join(each.split()) for each in sentences if not _ADVICE.search(each)]
    whole = " ".join(each for each in plain if each).rstrip(" .:") or type(error).__name__
    return whole if len(whole) <= limit else whole[: limit - 3].rstrip() + "..."
