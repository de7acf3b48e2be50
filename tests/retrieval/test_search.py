from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional

from guided.errors import UsageError
from guided.retrieval.contact_sheet import contact_sheet, table
from guided.retrieval.search import Query, Searcher, SearchResult, embed_query, filter_rows
from guided.retrieval.store import Store, open_or_create, open_store
from guided.retrieval.writer import Entry, Writer
from guided.scorers.clip import ClipScorer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Six vectors in the plane, at 0, 1, 2, 40, 90 and 180 degrees."""
    angles = torch.tensor([0.0, 1, 2, 40, 90, 180]).deg2rad()
    vectors = torch.zeros(6, 8)
    vectors[:, 0], vectors[:, 1] = angles.cos(), angles.sin()
    with open_or_create(tmp_path, "model", "print", 8) as made, Writer(made) as writer:
        entries = [Entry(f"/{i}.png", i, 1, str(i), {"number": i}) for i in range(6)]
        writer.add(entries, vectors)
    with open_store(tmp_path) as opened:
        yield opened


EAST = torch.eye(8)[0]


def names(hits: list[SearchResult]) -> list[str]:
    return [hit.file for hit in hits]


def test_the_best_come_first(store: Store) -> None:
    hits = Searcher(store)(EAST, 3)
    assert names(hits) == ["/0.png", "/1.png", "/2.png"]
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert len(Searcher(store)(EAST, 100)) == 6


def test_filters_come_before_the_ranking(store: Store) -> None:
    searcher = Searcher(store)
    assert names(searcher(EAST, 2, where="number >= 3")) == ["/3.png", "/4.png"]
    assert searcher(EAST, 2, where="number > 99") == []
    assert filter_rows(store, searcher.snapshot, "  ") is None


def test_what_looks_the_same_is_folded(store: Store) -> None:
    hits = Searcher(store)(EAST, 2, alike=0.99)
    assert names(hits) == ["/0.png", "/3.png"]
    assert hits[0].duplicates == ("/1.png", "/2.png")
    assert hits[1].duplicates == ()


def test_folding_looks_further_until_there_are_enough(tmp_path: Path) -> None:
    same = functional.normalize(torch.eye(8)[:1] + torch.zeros(200, 8), dim=1)
    rest = functional.normalize(torch.eye(8)[1:4] + 0.1 * torch.eye(8)[0], dim=1)
    with open_or_create(tmp_path, "model", "print", 8) as store, Writer(store) as writer:
        entries = [Entry(f"/{i}.png", i, 1, str(i)) for i in range(203)]
        writer.add(entries, torch.cat([same, rest]))
        hits = Searcher(store)(EAST, 3, alike=0.97)
    assert len(hits) == 3
    assert len(hits[0].duplicates) == 199


def test_a_searcher_keeps_its_commit(store: Store) -> None:
    searcher = Searcher(store)
    with open_store(store.folder) as other, Writer(other) as writer:
        writer.remove(["/0.png"])
    assert "/0.png" in names(searcher(EAST, 6))
    assert "/0.png" not in names(Searcher(store)(EAST, 6))


def test_a_query_is_the_weighted_mean_of_its_parts(scorer: ClipScorer) -> None:
    picture = torch.rand(1, 3, 32, 32)
    words, image = scorer.embed_texts(["a red hat"])[0], scorer.embed_images(picture)[0]
    both = embed_query(scorer, Query("a red hat", [picture], [0.25, 0.75]))
    torch.testing.assert_close(both, functional.normalize(0.25 * words + 0.75 * image, dim=0))
    torch.testing.assert_close(embed_query(scorer, Query(" a red hat ")), words)
    torch.testing.assert_close(embed_query(scorer, Query("", [picture])), image)
    away = embed_query(scorer, Query("a red hat", [picture], [-1, 1]))
    torch.testing.assert_close(away, functional.normalize(image - words, dim=0))


def test_queries_that_make_no_sense(scorer: ClipScorer) -> None:
    picture = torch.rand(1, 3, 32, 32)
    with pytest.raises(UsageError, match="The query is empty"):
        embed_query(scorer, Query("  "))
    with pytest.raises(UsageError, match="2 weights were given for 1 parts"):
        embed_query(scorer, Query("a", [], [1, 2]))
    with pytest.raises(UsageError, match="cancel out"):
        embed_query(scorer, Query("", [picture, picture], [1, -1]))


def test_a_sheet_shows_every_hit_even_one_that_is_gone(tmp_path: Path) -> None:
    file = tmp_path / f"{'long name ' * 8}.png"
    Image.new("RGB", (300, 100), (200, 0, 0)).save(file)
    hits = [
        SearchResult(str(file), 0.9, 1),
        SearchResult("/gone.png", 0.5, 2, ("/x.png", "/y.png")),
    ]
    sheet = contact_sheet(hits, side=100)
    assert sheet is not None
    assert sheet.width > sheet.height > 100
    assert sheet.getpixel((54, 54)) == (200, 0, 0)
    assert sheet.getpixel((158, 54)) == (200, 200, 200)
    assert contact_sheet([]) is None


def test_the_table(tmp_path: Path) -> None:
    hits = [SearchResult("/a,b.png", 0.25, 1, ("/x.png", "/y.png"))]
    assert table(hits).splitlines() == [
        "rank,score,file,duplicates,missing",
        '1,0.250000,"/a,b.png",/x.png|/y.png,missing|/x.png|/y.png',
    ]
