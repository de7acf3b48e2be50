"""Say how well pictures and texts fit: the cosine of every picture with every text."""

from __future__ import annotations

from typing import Any

from guided.core.foreign_syntax import weights_unread
from guided.core.long_texts import LONG_TEXT_HELP, LongText
from guided.core.run import Result, Step
from guided.errors import UsageError
from guided.tasks._scoring import SCORER_HELP, Precision, answer, embedded
from guided.tasks.base import Steps, TaskContext, TaskOptions, argument, option


class Options(TaskOptions):
    """The recipe keys of ``score``."""

    images: list[str] = argument("picture files", min_length=1)
    text: list[str] = option("a text; give several to compare them", min_length=1)
    scorer: str = option(SCORER_HELP, "")
    long_text: LongText = option(LONG_TEXT_HELP, "cut")
    precision: Precision = option("bf16 is quicker and exact to about 1e-3", "fp32")


def check(options: Options, ctx: TaskContext) -> None:
    """Refuse an empty text."""
    if not all(text.strip() for text in options.text):
        raise UsageError("A text is empty.", hint="Give --text some words.")


def run(options: Options, ctx: TaskContext) -> Steps:
    """Cosines in [-1, 1] by picture and text; ``warnings`` name texts that were cut.

    Raises:
        UsageError: an empty text.
    """
    check(options, ctx)
    texts = list(dict.fromkeys(options.text))
    scorer = ctx.models.of(options).scorer_in(options.precision)
    words = scorer.embed_texts(texts)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    for files, vectors, seen in embedded(scorer, options.images, ctx, errors):
        cosines = (vectors @ words.T).cpu().tolist()
        for file, row in zip(files, cosines, strict=True):
            results.append({"file": file, "scores": dict(zip(texts, row, strict=True))})
        yield Step(seen, len(options.images), "score")
    given = answer(results, errors)
    warnings = [str(cut) for cut in scorer.cuts(texts)]
    warnings += weights_unread(texts, "give each as a --text of its own, or use guided search")
    if warnings:
        given["warnings"] = warnings
    return Result(given)
