"""Find pictures of an index by words, by a picture, or by both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guided.core.run import Picture, Result, Step
from guided.errors import StoreError, UsageError
from guided.tasks._indexing import Habits, bring_up_to_date, check_folder
from guided.tasks._scoring import SCORER_HELP, pick_scorer
from guided.tasks.base import Steps, TaskOptions, Workbench, argument, option


class Options(TaskOptions):
    """The recipe keys of ``search``."""

    query: str = argument("what to look for: words, or the file of a picture", "")
    image: list[str] = option("a picture to look for, beside the words", [])
    weight: list[float] = option("a weight for the words and then for each picture", [])
    index: str = option("the folder of the index")
    folder: str = option("first index this folder of pictures, or bring its index up to date", "")
    top: int = option("how many results", 10, ge=1, le=100_000)
    where: str = option("a condition on the metadata, such as \"year >= 2020 and tag = 'cat'\"", "")
    group: bool = option("list pictures that look the same under the best of them", default=False)
    alike: float = option("the cosine from which pictures look the same", 0.97, ge=-1, le=1)
    scorer: str = option(f"{SCORER_HELP}; by default the one the index was made with", "")


def run(options: Options, bench: Workbench) -> Steps:
    """The best files with their cosines; also a contact sheet and a table in the run folder.

    With ``folder`` the index is made or brought up to date first.

    Raises:
        UsageError: an empty query, weights that do not fit, a filter that cannot be read.
        StoreError: no index, or one made with another scorer.
    """
    from guided.index.scan import metadata_beside
    from guided.index.search import Query, Searcher, embed_query
    from guided.index.sheet import contact_sheet, table
    from guided.index.store import open_store

    words, files = _parts(options, bench)
    if not words and not files:
        raise UsageError("The query is empty.", hint="Give words, a picture, or both.")
    place = Path(options.index)
    scorer = None
    if options.folder:
        check_folder(Path(options.folder), place)
        scorer = pick_scorer(bench, options.scorer or _maker(place))
        known = metadata_beside(Path(options.folder))
        yield from bring_up_to_date(scorer, Path(options.folder), place, known, Habits())
    with open_store(place) as store:
        scorer = scorer or pick_scorer(bench, options.scorer or store.model)
        store.check_model(scorer.name, scorer.fingerprint)
        pictures = [
            scorer.preprocess.pixels(bench.given.get(file, file))[None].float() / 255
            for file in files
        ]
        query = Query(words, pictures, options.weight)
        vector = embed_query(scorer, query)
        yield Step(1, 2, "embed the query")
        searcher = Searcher(store, bench.device.torch)
        alike = options.alike if options.group else None
        hits = searcher(vector, options.top, where=options.where, alike=alike)
        damage = [str(damaged) for damaged in searcher.snapshot.damage]
        yield Step(2, 2, "search")
    results: list[dict[str, Any]] = [{"file": hit.file, "score": hit.score} for hit in hits]
    if options.group:
        for row, hit in zip(results, hits, strict=True):
            row["duplicates"] = list(hit.duplicates)
    answer: dict[str, Any] = {"results": results}
    warnings = [str(cut) for cut in scorer.cuts([words] if words else [])]
    if damage or warnings:
        answer["warnings"] = [*warnings, *(f"A damaged shard is left out: {d}" for d in damage)]
    sheet = contact_sheet(hits)
    sheets = [] if sheet is None else [Picture("results.png", sheet)]
    return Result(answer, sheets, {"results.csv": table(hits)})


def _maker(place: Path) -> str:
    """The scorer an index was made with; empty where there is no index yet."""
    from guided.index.store import open_store

    try:
        with open_store(place) as store:
            return store.model
    except StoreError:
        return ""


def _parts(options: Options, bench: Workbench) -> tuple[str, list[str]]:
    """The words and the picture files of the query; a query that is a picture file is one."""
    from guided.core.files import PICTURES

    words = options.query.strip()
    if words in bench.given:
        return "", [words, *options.image]
    path = Path(words)
    if words and len(words) < 1000 and path.suffix.lower() in PICTURES and path.is_file():
        return "", [words, *options.image]
    return words, list(options.image)
