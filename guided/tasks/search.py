"""Find pictures of an index by words, by a picture, or by both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.long_texts import LONG_TEXT_HELP, LongText
from guided.core.run import OutputImage, Result, Step
from guided.core.text import there
from guided.errors import StoreError, UsageError
from guided.tasks._index_update import IndexingOptions, not_used, update_index
from guided.tasks._scoring import SCORER_HELP
from guided.tasks.base import (
    Steps,
    TaskContext,
    TaskOptions,
    argument,
    option,
    warn_idle,
)

if TYPE_CHECKING:
    from guided.retrieval.search import SearchResult
    from guided.scorers.clip import ClipScorer


class Options(TaskOptions):
    """The recipe keys of ``search``."""

    query: str = argument(
        "what to look for: 'TEXT' or 'TEXT | TEXT::WEIGHT', or the file of a picture", ""
    )
    image: list[str] = option("a picture to look for, beside the words", [])
    weight: list[float] = option("a weight for the words and then for each picture", [])
    index: str = option("the folder of the index")
    folder: str = option("first index this folder of pictures, or bring its index up to date", "")
    top: int = option("how many results", 10, ge=1, le=100_000)
    where: str = option("a condition on the metadata, such as \"year >= 2020 and tag = 'cat'\"", "")
    group: bool = option("list pictures that look the same under the best of them", default=False)
    alike: float = option("the cosine from which pictures look the same", 0.97, ge=-1, le=1)
    scorer: str = option(f"{SCORER_HELP}; by default the one the index was made with", "")
    long_text: LongText = option(LONG_TEXT_HELP, "cut")


def needs(options: Options) -> tuple[str, ...]:
    """The kit's scorer makes a new index; one that is there is asked with the scorer it has."""
    from guided.retrieval.schema import DATABASE

    new = bool(options.folder) and not (Path(options.index) / DATABASE).is_file()
    return ("scorer",) if options.scorer or new else ()


def run(options: Options, ctx: TaskContext) -> Steps:
    """The best files with their cosines; also a contact sheet and a table in the run folder.

    With ``folder`` the index is made or brought up to date first.

    Raises:
        UsageError: an empty query, weights that do not fit, a filter that cannot be read.
        StoreError: no index, or one made with another scorer.
    """
    from guided.core.prompts import parse
    from guided.retrieval.contact_sheet import contact_sheet, table
    from guided.retrieval.scan import survey
    from guided.retrieval.search import Query, Searcher, embed_query
    from guided.retrieval.store import open_store

    words, files = _parts(options, ctx)
    if not words and not files:
        raise UsageError("The query is empty.", hint="Give words, a picture, or both.")
    if not options.group:
        warn_idle(options, ("alike",), "it is for --group, which is not given")
    place = Path(options.index)
    scorer: ClipScorer | None = None
    warnings: list[str] = []
    if options.folder:
        found = survey(Path(options.folder), place)
        scorer = _scorer(options, ctx, _maker(place))
        tally, _ = yield from update_index(scorer, found, place, IndexingOptions())
        warnings = not_used(found, tally)
    with open_store(place) as store:
        scorer = scorer or _scorer(options, ctx, store.model)
        store.check_model(scorer.name, scorer.fingerprint)
        pictures = [
            scorer.preprocess.pixels(ctx.given.get(file, file))[None].float() / 255
            for file in files
        ]
        query = Query(words, pictures, options.weight)
        vector = embed_query(scorer, query)
        yield Step(1, 2, "embed the query")
        searcher = Searcher(store, ctx.device.torch)
        alike = options.alike if options.group else None
        hits = searcher(vector, options.top, where=options.where, alike=alike)
        damage = [str(damaged) for damaged in searcher.snapshot.damage]
        yield Step(2, 2, "search")
    results = [_row(hit, group=options.group) for hit in hits]
    answer: dict[str, Any] = {"results": results}
    warnings += [
        str(cut) for cut in scorer.cuts([text for text, _ in parse(words)] if words else [])
    ]
    warnings += [f"A damaged shard is left out: {d}" for d in damage]
    warnings += _lost(results, place)
    if warnings:
        answer["warnings"] = warnings
    sheet = contact_sheet(hits)
    sheets = [] if sheet is None else [OutputImage("results.png", sheet)]
    return Result(answer, sheets, {"results.csv": table(hits)})


def _lost(results: Sequence[Mapping[str, Any]], place: Path) -> list[str]:
    """A warning of results whose files are not there, where there are some."""
    listed = sum(1 + len(row.get("duplicates", ())) for row in results)
    own = sum("missing" in row for row in results)
    lost = own + sum(len(row.get("missing_duplicates", ())) for row in results)
    if not lost:
        return []
    return [
        f"{lost} of {listed} results are files that are not there now (missing): moved, gone or "
        f"unreachable. To forget them: guided index --prune --index {place}"
    ]


def _row(hit: SearchResult, *, group: bool) -> dict[str, Any]:
    """A hit in the answer; ``missing`` where its file is not there, ``missing_duplicates`` where
    some of those that look the same are not.
    """
    from guided.retrieval.scan import missing

    row: dict[str, Any] = {"file": hit.file, "score": hit.score}
    if group:
        row["duplicates"] = list(hit.duplicates)
        if lost := [file for file in hit.duplicates if missing(file)]:
            row["missing_duplicates"] = lost
    return {**row, "missing": True} if missing(hit.file) else row


def _scorer(options: Options, ctx: TaskContext, maker: str) -> ClipScorer:
    """The scorer asked for, or the one an index was made with, or the kit's."""
    models = ctx.models.of(options)
    return models.scorer_named(maker) if maker and not options.scorer else models.scorer


def _maker(place: Path) -> str:
    """The scorer an index was made with; empty where there is no index yet."""
    from guided.retrieval.store import open_store

    try:
        with open_store(place) as store:
            return store.model
    except StoreError:
        return ""


def _parts(options: Options, ctx: TaskContext) -> tuple[str, list[str]]:
    """The words and the picture files of the query; a query that is a picture file is one."""
    from guided.core.files import IMAGE_SUFFIXES

    words = options.query.strip()
    if words in ctx.given:
        return "", [words, *options.image]
    path = Path(words)
    if words and path.suffix.lower() in IMAGE_SUFFIXES and there(path) and path.is_file():
        return "", [words, *options.image]
    return words, list(options.image)
