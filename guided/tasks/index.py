"""Make a folder of pictures searchable, or bring its index up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.run import Result, Step
from guided.core.tables import ENCODING_HELP
from guided.errors import UsageError
from guided.tasks._index_update import IndexingOptions, update_index
from guided.tasks._scoring import SCORER_HELP, BulkPrecision
from guided.tasks.base import Steps, TaskContext, TaskOptions, argument, option, recipe_only

if TYPE_CHECKING:
    from guided.retrieval.scan import FolderSurvey
    from guided.retrieval.update import UpdateStats


class Options(TaskOptions):
    """The recipe keys of ``index``."""

    folder: str = argument("the folder of the pictures; left out with --prune", "")
    index: str = option("the folder of the index")
    metadata: str = option(
        "table (CSV, TSV, JSON lines or JSON) with a column 'file' or 'file_name'; by default "
        "metadata.* and captions.jsonl in the folder or below it",
        "",
    )
    encoding: str = option(ENCODING_HELP, "")
    prune: bool = option("forget pictures that are gone, or unreachable for good", default=False)
    scorer: str = option(SCORER_HELP, "")
    precision: BulkPrecision = option(
        "bf16 and, on a CPU, int8 are quicker and change cosines by about 1e-4", "fp32"
    )
    exact: bool = option("decode JPEG files at full size", default=False)
    batch: int = recipe_only("pictures a forward pass", 32, ge=1, le=4096)
    threads: int = recipe_only("threads that decode", 2, ge=0, le=256)
    commit: int = recipe_only("pictures a commit; a killed run loses at most these", 256, ge=1)


def needs(options: Options) -> tuple[str, ...]:
    """Pictures need a scorer; to forget some needs none."""
    return ("scorer",) if options.folder else ()


def run(options: Options, ctx: TaskContext) -> Steps:
    """Embed what is new or changed and drop what is gone; a killed run goes on where it was.

    The answer counts files: ``added`` (new or changed), ``skipped`` (unchanged), ``removed`` and
    ``total`` (in the index now).  ``errors`` lists files that cannot be read, ``left_out`` files
    that look like pictures and are not read here, ``unreachable`` folders and files that cannot be
    reached now, whose entries stay; ``warnings`` name rows of metadata that match no file, and
    folders elsewhere that are gone.

    Raises:
        UsageError: no such folder, no picture in it, or int8 on a device that is not a CPU.
        StoreError: an index made with another scorer, or another process writing to it.
    """
    from guided.retrieval.scan import survey

    place = Path(options.index)
    if not options.folder:
        if not options.prune:
            raise UsageError(
                "No folder of pictures is given.",
                hint="Name one, or forget pictures that are gone: guided index --prune --index "
                f"{place}",
            )
        removed, total = _pruned(place)
        yield Step(1, 1, "prune")
        return Result({"added": 0, "skipped": 0, "removed": removed, "total": total})
    named = Path(options.metadata) if options.metadata else None
    folder = _folder(options, place)
    found = survey(folder, place, metadata=named, encoding=options.encoding)
    scorer = ctx.models.of(options).scorer_in(options.precision, many=True)
    habits = IndexingOptions(options.batch, options.threads, options.commit, options.exact)
    tally, total = yield from update_index(scorer, found, place, habits)
    if options.prune:
        removed, total = _pruned(place)
        tally.removed += removed
    return Result(_answer(tally, total, found, _elsewhere(place, folder)))


def _folder(options: Options, place: Path) -> Path:
    """The folder of the pictures.

    Raises:
        UsageError: it is not there; the message says what the index holds of it.
    """
    from guided.retrieval.schema import DATABASE

    folder = Path(options.folder)
    if folder.is_dir() or not (place / DATABASE).is_file():
        return folder
    raise UsageError(
        f"There is no folder {folder}. What the index {place} has of it stays.",
        hint="If it is on a disk, connect that. If it moved, index the new folder; if it is gone "
        f"for good: guided index --prune --index {place}",
    )


def _pruned(place: Path) -> tuple[int, int]:
    """Forget what is not there; how many files, and how many are left."""
    from guided.retrieval.prune import prune
    from guided.retrieval.store import open_store
    from guided.retrieval.writer import Writer

    with open_store(place) as store, Writer(store) as writer:
        return len(prune(writer)), len(store)


def _elsewhere(place: Path, folder: Path) -> list[str]:
    """Sentences about other folders of the index that are not there."""
    from guided.core.listing import few
    from guided.retrieval.prune import ghosts
    from guided.retrieval.store import open_store

    with open_store(place) as store:
        lost = ghosts(store, folder)
    if not lost:
        return []
    return [
        f"{sum(lost.values())} files of the index are in folders that are not there now, moved, "
        f"gone or unreachable: {few(f'{where} ({count})' for where, count in lost.items())}. To "
        f"forget them: guided index --prune --index {place}"
    ]


def _answer(
    tally: UpdateStats, total: int, found: FolderSurvey, elsewhere: list[str]
) -> dict[str, Any]:
    given: dict[str, Any] = {
        "added": tally.added, "skipped": tally.skipped, "removed": tally.removed, "total": total,
    }  # fmt: skip
    for key, name, listed in (
        ("errors", "error", tally.errors),
        ("left_out", "reason", found.left_out),
        ("unreachable", "reason", tally.unreachable),
    ):
        if listed:
            given[key] = [{"file": file, name: why} for file, why in listed.items()]
    if warnings := [*found.warnings, *elsewhere]:
        given["warnings"] = warnings
    return given
