"""Make a folder of pictures searchable, or bring its index up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guided.core.run import Result
from guided.tasks._indexing import Habits, bring_up_to_date, check_folder
from guided.tasks._scoring import SCORER_HELP, BulkPrecision, pick_scorer
from guided.tasks.base import Steps, TaskOptions, Workbench, argument, option, recipe_only


class Options(TaskOptions):
    """The recipe keys of ``index``."""

    folder: str = argument("the folder of the pictures")
    index: str = option("the folder of the index")
    metadata: str = option(
        "JSON lines or CSV with a key 'file'; by default metadata.jsonl, portraits.jsonl or "
        "metadata.csv in the folder",
        "",
    )
    scorer: str = option(SCORER_HELP, "")
    precision: BulkPrecision = option(
        "bf16 and, on a CPU, int8 are quicker and change cosines by about 1e-4", "fp32"
    )
    exact: bool = option("decode JPEG files at full size", default=False)
    batch: int = recipe_only("pictures a forward pass", 32, ge=1, le=4096)
    threads: int = recipe_only("threads that decode", 2, ge=0, le=256)
    commit: int = recipe_only("pictures a commit; a killed run loses at most these", 256, ge=1)


def run(options: Options, bench: Workbench) -> Steps:
    """Embed what is new or changed and drop what is gone; a killed run goes on where it was.

    The answer counts files: ``added`` (new or changed), ``skipped`` (unchanged), ``removed`` and
    ``total`` (in the index now); ``errors`` lists files that cannot be read.

    Raises:
        UsageError: no such folder, no picture in it, or int8 on a device that is not a CPU.
        StoreError: an index made with another scorer, or another process writing to it.
    """
    from guided.index.scan import metadata_beside, read_metadata

    folder, place = Path(options.folder), Path(options.index)
    check_folder(folder, place)
    known = read_metadata(Path(options.metadata)) if options.metadata else metadata_beside(folder)
    scorer = pick_scorer(bench, options.scorer, options.precision, many=True)
    habits = Habits(options.batch, options.threads, options.commit, options.exact)
    tally, total = yield from bring_up_to_date(scorer, folder, place, known, habits)
    return Result(_answer(tally.added, tally.skipped, tally.removed, total, tally.errors))


def _answer(
    added: int, skipped: int, removed: int, total: int, errors: Mapping[str, str]
) -> dict[str, Any]:
    given: dict[str, Any] = {
        "added": added, "skipped": skipped, "removed": removed, "total": total,
    }  # fmt: skip
    if errors:
        given["errors"] = [{"file": file, "error": why} for file, why in errors.items()]
    return given
