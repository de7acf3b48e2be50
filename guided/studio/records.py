"""Finished runs: their records, the history of a folder, what a picture tells of itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guided.core import lineage, toml
from guided.core.reading import RECORD, read_json
from guided.core.seeds import read_seed
from guided.errors import GuidedError, RecipeError, UsageError
from guided.run_folder import RECIPE_FILE, RUN_FILE, numbers_of_runs, record_file
from guided.studio.planning import OUTPUTS
from guided.zoo.recipes import read_text

logger = logging.getLogger(__name__)


def read_record(folder: Path, number: int | None = None) -> tuple[str, dict[str, Any]]:
    """The recipe text and the run.json of a run folder.

    Where several runs were saved into one folder with --out, the later ones have ``recipe-2.toml``
    and ``run-2.json``, ...; ``number`` says which, None is the last.

    Raises:
        UsageError: not a run folder, one whose run did not end, or one that is damaged.
    """
    if number is not None:
        return _record(folder, number)
    finished, damaged = [], []
    for each in numbers_of_runs(folder):
        try:
            finished.append((each, *_record(folder, each)))
        except UsageError as error:
            damaged.append(error)
    if finished:
        _, text, record = max(finished, key=lambda run: (str(run[2].get("started")), run[0]))
        return text, record
    if damaged:
        raise damaged[0]
    begun = (folder / RECIPE_FILE).exists()
    what = "holds a run that did not end" if begun else "is not the folder of a finished run"
    raise UsageError(f"{folder} {what}: it has no {RUN_FILE}.", hint="See: guided list runs")


def _record(folder: Path, number: int) -> tuple[str, dict[str, Any]]:
    path = record_file(folder, RUN_FILE, number)
    try:
        text = read_text(record_file(folder, RECIPE_FILE, number))
        record = read_json(path, **RECORD)
    except (OSError, ValueError, RecipeError) as error:
        raise UsageError(
            f"{folder} is not the folder of a finished run: {path.name}: {error}.",
            hint="See: guided list runs",
        ) from error
    if not isinstance(record, dict):
        raise UsageError(f"{path} is damaged.", hint="See: guided list runs")
    return text, record


def history(outputs: Path = OUTPUTS) -> list[dict[str, Any]]:
    """The finished runs under a folder, the newest first: folder, task, seed, about, started.

    What is half made or damaged is left out, with a line in the log where it says it is finished.
    """
    folders = sorted({file.parent for file in outputs.glob("*/run*.json")})
    finished = [row for folder in folders for row in _finished(folder)]
    return sorted(finished, key=lambda past: (past["started"], past["folder"]), reverse=True)


def _finished(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of the runs in one folder."""
    for number in numbers_of_runs(folder):
        try:
            text, record = read_record(folder, number)
            recipe = toml.parse(text)
        except GuidedError as error:
            logger.warning("%s is left out: %s", folder, error)
            continue
        yield {
            "folder": str(folder.absolute()),
            "task": str(recipe.get("task", "")),
            "seed": _seed_of(recipe),
            "about": str(recipe.get("about", "")),
            "started": str(record.get("started", "")),
        }


def _seed_of(recipe: Mapping[str, Any]) -> int:
    """The seed of a recipe's table; 0 where it has none."""
    try:
        return read_seed(recipe.get("seed", 0))
    except RecipeError:
        return 0


def show(path: str | Path) -> dict[str, Any]:
    """What a picture (or run folder) tells: its recipe, note and whole lineage, the oldest first.

    Raises:
        UsageError: no such file, or nothing is told.
        ImageError: a file that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        text, record = read_record(path)
        return {"file": str(path.absolute()), "recipe": text, "run": record}
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    known = lineage.read(path)
    if known is None:
        raise UsageError(
            f"{path} carries no recipe.", hint="Only PNG files made by guided remember how."
        )
    line = [
        {"id": a.id, "name": a.name, "parents": list(a.parents), "note": dict(a.note),
         "recipe": a.recipe}
        for a in known.chain
    ]  # fmt: skip
    return {
        "file": str(path.absolute()),
        "recipe": known.picture.recipe,
        "note": dict(known.picture.note),
        "setting": dict(known.picture.setting),
        "lineage": line,
    }
