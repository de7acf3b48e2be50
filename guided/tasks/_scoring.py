"""What the verbs that score pictures share: the scorer they run with, and their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from guided.core.text import absolute
from guided.errors import UsageError
from guided.models import SCORER_HELP
from guided.tasks.base import TaskContext

if TYPE_CHECKING:
    from torch import Tensor

    from guided.scorers.clip import ClipScorer

__all__ = ["CACHE", "SCORER_HELP", "BulkPrecision", "Precision", "answer", "embedded"]

Precision = Literal["fp32", "bf16"]
BulkPrecision = Literal["fp32", "bf16", "int8"]
CACHE = "outputs/cache/classifiers"


def embedded(
    scorer: ClipScorer, files: Sequence[str], ctx: TaskContext, errors: list[dict[str, str]]
) -> Iterator[tuple[list[str], Tensor, int]]:
    """Batches of absolute paths, their unit vectors [n, D], and how many files were seen so far.

    A picture given in memory keeps its name.  Files that cannot be read are appended to
    ``errors`` as the answer's ``errors`` entries.

    Raises:
        UsageError: no file.
    """
    if not files:
        raise UsageError("There is no picture.", hint="Name at least one picture file.")
    places = [file if file in ctx.given else absolute(file) for file in files]
    seen = 0
    for pixels, vectors in scorer.embed_files(places, given=ctx.given):
        seen += len(pixels.files) + len(pixels.errors)
        errors.extend({"file": str(f), "error": why} for f, why in pixels.errors.items())
        yield [str(file) for file in pixels.files], vectors, seen


def answer(results: list[dict[str, Any]], errors: list[dict[str, str]]) -> dict[str, Any]:
    """The answer of a batch verb: results, and errors where there are any."""
    return {"results": results, "errors": errors} if errors else {"results": results}
