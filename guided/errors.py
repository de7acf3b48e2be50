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
from collections.abc import Iterable


class GuidedError(Exception):
    """A failure with a readable message and, where there is one, the next thing to do.

    ``message`` says what was given and what is allowed; ``hint`` says what to do next.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
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
