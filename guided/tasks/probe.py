"""Train a linear classifier on a scorer's frozen features, and say how good they are.

The pictures are in a folder with a subfolder for each class, or named in a CSV with the columns
``file`` and ``label`` (and ``split``: train or test).  Subfolders ``train`` and ``test`` with the
classes inside are taken as they are; otherwise a fifth of each class is held out as the test.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.run import Result, Step
from guided.errors import UsageError
from guided.tasks._scoring import SCORER_HELP, Precision, embedded, pick_scorer
from guided.tasks.base import Steps, TaskOptions, Workbench, argument, option, recipe_only

if TYPE_CHECKING:
    from torch import Tensor

    from guided.training.linear_probe import Probe, Trial

Labelled = list[tuple[str, str, str]]
"""File, label and split ("train", "test" or "" where it is not given)."""


class Options(TaskOptions):
    """The recipe keys of ``probe``."""

    folder: str = argument("a folder with a subfolder a class, or a CSV with file and label")
    scorer: str = option(SCORER_HELP, "")
    precision: Precision = option("bf16 is quicker and exact to about 1e-3", "fp32")
    l2: float | None = option("the L2 strength; by default it is searched for", None, gt=0)
    shots: list[int] = option("rows a class for the few-shot curve", [1, 2, 4, 8, 16])
    draws: int = recipe_only("random draws for each point of the curve", 3, ge=1, le=100)
    held_out: float = recipe_only("share of each class in the test", 0.2, gt=0, lt=1)


def run(options: Options, bench: Workbench) -> Steps:
    """Test accuracy with its interval, the strength and its sweep, and the few-shot curve.

    The classifier is saved as ``probe.safetensors`` with its labels in ``probe.json``.

    Raises:
        UsageError: a folder without classes, or a class with a single picture.
    """
    import torch

    from guided.judging.retrieval import rate
    from guided.training.linear_probe import fit_probe, search_strength, shot_curve, split

    listed = read_labelled(Path(options.folder))
    scorer = pick_scorer(bench, options.scorer, options.precision)
    errors: list[dict[str, str]] = []
    files, parts = [], []
    for names, vectors, seen in embedded(scorer, [f for f, _, _ in listed], bench, errors):
        files.extend(names)
        parts.append(vectors.cpu())
        yield Step(seen, len(listed), "embed")
    rows = {file: (label, part) for file, label, part in listed}
    labels = check_classes([rows[file][0] for file in files])
    truth = torch.tensor([labels.index(rows[file][0]) for file in files])
    features, dice = torch.cat(parts), torch.Generator().manual_seed(bench.seed)
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
        shots=options.shots, draws=options.draws, seed=bench.seed,
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
    if errors:
        answer["errors"] = errors
    saved = _files(probe, labels, scorer.name, scorer.fingerprint)
    return Result(answer, files=saved, scores={"accuracy": found.value})


def read_labelled(place: Path) -> Labelled:
    """The pictures of a folder or a CSV with their labels, as absolute paths.

    Raises:
        UsageError: neither a folder nor a CSV, or one without pictures in classes.
    """
    if place.suffix.lower() == ".csv":
        listed = _from_csv(place)
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
    return listed


def _from_folder(folder: Path, part: str) -> Labelled:
    from guided.index.scan import pictures

    root = folder.resolve()
    return [
        (entry.file, Path(entry.file).relative_to(root).parts[0], part)
        for entry in pictures(folder)
        if len(Path(entry.file).relative_to(root).parts) > 1
    ]


def _from_csv(path: Path) -> Labelled:
    found: Labelled = []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=1):
                if not row.get("file") or not row.get("label"):
                    raise UsageError(
                        f"Row {number} of {path} lacks a file or a label.",
                        hint="The first line names the columns: file,label or file,label,split.",
                    )
                part = (row.get("split") or "").strip()
                if part not in ("", "train", "test"):
                    raise UsageError(
                        f"Row {number} of {path} has the split {part!r}.", hint="train or test."
                    )
                file = (path.resolve().parent / row["file"]).absolute()
                found.append((str(file), row["label"], part))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"The list {path} cannot be read: {error}.") from error
    return found


def check_classes(labels: Sequence[str]) -> list[str]:
    """The classes in order of name.

    Raises:
        UsageError: fewer than two, or one with a single picture.
    """
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise UsageError(
            f"A classifier needs two classes; found: {', '.join(classes) or 'none'}.",
            hint="Make a subfolder for each class.",
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
        "probe.json": json.dumps(about, ensure_ascii=False, indent=1) + "\n",
    }
