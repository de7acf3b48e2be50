"""Train a linear classifier on a scorer's frozen features, and say how good they are.

The pictures are in a folder with a subfolder for each class, or named in a table (CSV, TSV, JSON
lines or JSON) with the columns ``file`` and ``label`` (and ``split``: train or test).  Subfolders
``train`` and ``test`` with the classes inside are taken as they are; otherwise a fifth of each
class is held out as the test.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.image_names import ImageNames
from guided.core.listing import few, list_folder
from guided.core.run import Result, Step
from guided.core.tables import ENCODING_HELP, TABLE_ENDINGS, read_table
from guided.core.text import json_text, there
from guided.errors import UsageError
from guided.tasks._scoring import SCORER_HELP, Precision, embedded
from guided.tasks.base import Steps, TaskContext, TaskOptions, argument, option, recipe_only

if TYPE_CHECKING:
    from torch import Tensor

    from guided.training.linear_probe import Probe, Trial

Labelled = list[tuple[str, str, str]]
"""File, label and split ("train", "test" or "" where it is not given)."""


class Options(TaskOptions):
    """The recipe keys of ``probe``."""

    folder: str = argument("a folder with a subfolder a class, or a table with file and label")
    encoding: str = option(ENCODING_HELP, "")
    scorer: str = option(SCORER_HELP, "")
    precision: Precision = option("bf16 is quicker and exact to about 1e-3", "fp32")
    l2: float | None = option("the L2 strength; by default it is searched for", None, gt=0)
    shots: list[int] = option("rows a class for the few-shot curve", [1, 2, 4, 8, 16])
    draws: int = recipe_only("random draws for each point of the curve", 3, ge=1, le=100)
    held_out: float = recipe_only("share of each class in the test", 0.2, gt=0, lt=1)


def run(options: Options, ctx: TaskContext) -> Steps:
    """Test accuracy with its interval, the strength and its sweep, and the few-shot curve.

    The classifier is saved as ``probe.safetensors`` with its labels in ``probe.json``.

    Raises:
        UsageError: a folder without classes, or a class with a single picture.
    """
    import torch

    from guided.judging.retrieval import rate
    from guided.training.linear_probe import fit_probe, search_strength, shot_curve, split

    listed, faults = read_labelled(Path(options.folder), options.encoding)
    scorer = ctx.models.of(options).scorer_in(options.precision)
    errors: list[dict[str, str]] = []
    files, parts = [], []
    for names, vectors, seen in embedded(scorer, [f for f, _, _ in listed], ctx, errors):
        files.extend(names)
        parts.append(vectors.cpu())
        yield Step(seen, len(listed), "embed")
    rows = {file: (label, part) for file, label, part in listed}
    labels = check_classes([rows[file][0] for file in files], errors)
    truth = torch.tensor([labels.index(rows[file][0]) for file in files])
    features, dice = torch.cat(parts), torch.Generator().manual_seed(ctx.seed)
    train, test = _divide([rows[file][1] for file in files], truth, options.held_out, dice)
    x, y, tx, ty = features[train], truth[train], features[test], truth[test]
    trials: list[Trial] = []
    strength = options.l2
    if strength is None:
        fit_rows, check_rows = split(y, 0.2, dice)
        strength, trials = search_strength(
            (x[fit_rows], y[fit_rows]), (x[check_rows], y[check_rows]), len(labels)
        )
    yield Step(len(listed), len(listed), "sweep")
    probe = fit_probe(x, y, len(labels), strength)
    hits = (probe.logits(tx).argmax(dim=1) == ty).double()
    curve = []
    for point in shot_curve(
        (x, y), (tx, ty), len(labels), strength,
        shots=options.shots, draws=options.draws, seed=ctx.seed,
    ):  # fmt: skip
        curve.append(asdict(point))
        yield Step(len(listed), len(listed), f"{point.shots} shots", {"accuracy": point.accuracy})
    found = rate(hits)
    answer: dict[str, Any] = {
        "classes": labels,
        "train": len(train),
        "test": len(test),
        "accuracy": found.value,
        "interval": [found.low, found.high],
        "l2": strength,
        "converged": probe.converged,
        "sweep": [asdict(trial) for trial in trials],
        "curve": curve,
    }
    unused = [f"{len(faults)} rows are not used: {few(faults)}"] if faults else []
    answer |= {k: told for k, told in (("errors", errors), ("warnings", unused)) if told}
    saved = _files(probe, labels, scorer.name, scorer.fingerprint)
    return Result(answer, files=saved, scores={"accuracy": found.value})


def read_labelled(place: Path, encoding: str = "") -> tuple[Labelled, list[str]]:
    """The pictures of a folder or a table with their labels, as absolute paths, and sentences
    about rows that are not used.

    Raises:
        UsageError: neither a folder nor a table, or one without pictures in classes.
    """
    faults: list[str] = []
    if place.suffix.lower() in TABLE_ENDINGS and not place.is_dir():
        listed, faults = _from_table(place, encoding)
    else:
        whole = [(place / "train", "train"), (place / "test", "test")]
        divided = all(folder.is_dir() for folder, _ in whole)
        parts = whole if divided else [(place, "")]
        listed = [item for folder, part in parts for item in _from_folder(folder, part)]
    if not listed:
        raise UsageError(
            f"There are no pictures in classes in {place}.",
            hint="Make a subfolder for each class, or a CSV with the columns file and label.",
        )
    twice = {file for file, _, _ in listed}
    if len(twice) < len(listed):
        raise UsageError(f"{place} names a file more than once.", hint="Name each file once.")
    return listed, faults


def _from_folder(folder: Path, part: str) -> Labelled:
    from guided.retrieval.scan import pictures

    root = folder.resolve()
    return [
        (entry.file, Path(entry.file).relative_to(root).parts[0], part)
        for entry in pictures(folder)
        if len(Path(entry.file).relative_to(root).parts) > 1
    ]


def _from_table(path: Path, encoding: str) -> tuple[Labelled, list[str]]:
    """The rows of a table with a label, and what is wrong with others; the same picture once."""
    folder = path.resolve().parent
    table = read_table(path.resolve(), encoding, folder)
    found: Labelled = []
    faults = list(table.faults)
    names: ImageNames | None = None
    for row in table.rows:
        values = {key.lower(): value for key, value in row.values.items()}
        label = values.get("label")
        part = str(values.get("split") or "").strip()
        file = os.path.normpath(folder / row.name)
        if not there(Path(file)):
            names = names or ImageNames(list_folder(folder).images)
            file = names.find(folder, row.name) or file
        if label is None or not str(label).strip():
            faults.append(f"{row.where}: it has no label")
        elif part not in ("", "train", "test"):
            faults.append(f"{row.where}: it has the split {part!r}, not train or test")
        else:
            found.append((file, str(label).strip(), part))
    if not found:
        told = f": {few(faults)}" if faults else ""
        raise UsageError(
            f"There are no pictures in classes in {path}{told}.",
            hint="The first line names the columns: file,label or file,label,split.",
        )
    return found, faults


def check_classes(labels: Sequence[str], errors: Sequence[Mapping[str, str]] = ()) -> list[str]:
    """The classes in order of name; ``errors`` are pictures that could not be read.

    Raises:
        UsageError: fewer than two, or one with a single picture.
    """
    if not labels and errors:
        reasons = few(each["error"].partition(". ")[0] for each in errors)
        raise UsageError(
            f"None of the {len(errors)} pictures can be read: {reasons}.",
            hint="Check the paths; in a table they are relative to its folder.",
        )
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise UsageError(
            f"A classifier needs two classes; found: {', '.join(classes) or 'none'}.",
            hint="Make a subfolder for each class, or give the column label of a table two values.",
        )
    lonely = [label for label in classes if labels.count(label) < 3]
    if lonely:
        raise UsageError(
            f"Too few readable pictures for training, choosing and testing: {', '.join(lonely)}.",
            hint="Give each class at least three.",
        )
    return classes


def _divide(parts: Sequence[str], truth: Tensor, share: float, dice: Any) -> tuple[Tensor, Tensor]:
    """The rows to train and to test on: as given, or a share of each class."""
    import torch

    from guided.training.linear_probe import split

    if any(parts):
        train = torch.tensor([i for i, part in enumerate(parts) if part != "test"])
        test = torch.tensor([i for i, part in enumerate(parts) if part == "test"])
        if not len(test) or len(torch.unique(truth[train.long()])) < len(torch.unique(truth)):
            raise UsageError(
                "The given split leaves no test, or a class without training pictures.",
                hint="Put pictures of each class into train, and some into test.",
            )
        return train, test
    return split(truth, share, dice)


def _files(probe: Probe, labels: list[str], name: str, fingerprint: str) -> dict[str, str | bytes]:
    from safetensors.torch import save

    tensors = {"weight": probe.weight.float().cpu(), "bias": probe.bias.float().cpu()}
    about = {"labels": labels, "scorer": name, "fingerprint": fingerprint, "l2": probe.l2}
    return {
        "probe.safetensors": save({key: value.contiguous() for key, value in tensors.items()}),
        "probe.json": json_text(about, indent=1, allow_nan=True) + "\n",
    }
