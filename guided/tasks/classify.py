"""Sort pictures into classes named in words, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from guided.core.foreign_syntax import weights_unread
from guided.core.long_texts import LONG_TEXT_HELP, LongText
from guided.core.run import Result, Step
from guided.errors import UsageError
from guided.tasks._scoring import CACHE, SCORER_HELP, Precision, answer, embedded
from guided.tasks.base import Steps, TaskContext, TaskOptions, argument, option, recipe_only


class Options(TaskOptions):
    """The recipe keys of ``classify``."""

    images: list[str] = argument("picture files", min_length=1)
    label: list[str] = option("a class", [])
    template: list[str] = option("a sentence with {} for the label; several are averaged", [])
    templates: Literal["", "openai", "simple"] = option(
        "a known set of sentences: the 80 of the CLIP paper, or the 7 best of them", ""
    )
    classes: str = option("a JSON or TOML file of classes, each with a list of prompts", "")
    scorer: str = option(SCORER_HELP, "")
    long_text: LongText = option(LONG_TEXT_HELP, "cut")
    precision: Precision = option("bf16 is quicker and exact to about 1e-3", "fp32")
    cache: str = recipe_only("where classifiers are kept; empty keeps none", CACHE)


def prompts(options: Options) -> dict[str, list[str]]:
    """The prompts of each class, from the file or from labels and templates.

    Raises:
        UsageError: both or neither given, a label twice, a template without a place.
    """
    from guided.scorers.zero_shot import prompts_of, read_classes

    named = [options.templates] if options.templates else []
    if options.classes:
        if options.label or options.template or named:
            raise UsageError(
                "--classes brings its own labels and prompts.",
                hint="Leave out --label, --template and --templates, or --classes.",
            )
        return read_classes(Path(options.classes))
    return prompts_of(options.label, [*options.template, *named])


def run(options: Options, ctx: TaskContext) -> Steps:
    """The likeliest label of each picture and the probability of all.

    Probabilities are the softmax of the scorer's scaled cosines: they compare the labels given,
    and say nothing about labels that were not.
    """
    import torch

    from guided.scorers.zero_shot import cached_classifier

    classes = prompts(options)
    scorer = ctx.models.of(options).scorer_in(options.precision)
    folder = Path(options.cache) if options.cache else None
    classifier = cached_classifier(scorer, classes, folder)
    labels = list(classes)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    for files, vectors, seen in embedded(scorer, options.images, ctx, errors):
        odds = torch.softmax(scorer.scale * vectors @ classifier.T, dim=1).cpu()
        for file, row in zip(files, odds, strict=True):
            scores = dict(zip(labels, row.tolist(), strict=True))
            results.append({"file": file, "label": labels[int(row.argmax())], "scores": scores})
        yield Step(seen, len(options.images), "classify")
    texts = [text for prompts in classes.values() for text in prompts]
    warnings = [str(cut) for cut in scorer.cuts(texts)]
    warnings += weights_unread(texts, "give each as a --label of its own")
    given = answer(results, errors)
    return Result({**given, "warnings": warnings} if warnings else given)
