from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from guided.errors import ImageError, StoreError, UsageError
from guided.retrieval.store import open_store
from guided.tasks import index, search
from tests.helpers.tiny_clip import write_clip
from tests.tasks.scoring import paint, perform


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("index") / "clip")


@pytest.fixture(scope="module")
def made(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("made")
    files = paint(folder / "pictures", 12)
    lines = [{"file": file.name, "year": 2000 + i} for i, file in enumerate(files)]
    (folder / "pictures" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    perform(index, bundle, folder=str(folder / "pictures"), index=str(folder / "index"))
    return folder / "index", files


def find(place: Path, **keys: object) -> list[dict]:
    return perform(search, None, index=str(place), **keys)[0].answer["results"]


def test_the_answer_counts_files(bundle: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    files = paint(pictures, 5)
    keys = {"folder": str(pictures), "index": str(tmp_path / "index"), "commit": 2}
    first, steps = perform(index, bundle, **keys)
    assert first.answer == {"added": 5, "skipped": 0, "removed": 0, "total": 5}
    assert [step.index for step in steps] == [1, 2, 4, 5]
    files[0].unlink()
    (pictures / "bad.png").write_bytes(b"no picture")
    second, _ = perform(index, bundle, **keys)
    (error,) = second.answer.pop("errors")
    assert second.answer == {"added": 0, "skipped": 4, "removed": 1, "total": 4}
    assert error["file"] == str(pictures / "bad.png")


def test_search_by_words(made: tuple[Path, list[Path]]) -> None:
    result, _ = perform(search, None, query="a red hat", index=str(made[0]), top=3)
    rows = result.answer["results"]
    assert [set(row) for row in rows] == [{"file", "score"}] * 3
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert result.pictures[0].name == "results.png"
    assert result.files["results.csv"].count("\n") == 4


def test_search_by_a_picture_finds_it(made: tuple[Path, list[Path]]) -> None:
    for file in made[1][:4]:
        for keys in ({"query": str(file)}, {"image": [str(file)]}):
            best = find(made[0], top=1, **keys)[0]
            assert best["file"] == str(file)
            assert best["score"] == pytest.approx(1, abs=1e-3)


def test_search_by_both_with_weights(made: tuple[Path, list[Path]]) -> None:
    file = str(made[1][3])
    picture = find(made[0], query="a red hat", image=[file], weight=[0, 1], top=12)
    words = find(made[0], query="a red hat", image=[file], weight=[1, 0], top=12)
    assert picture == find(made[0], query=file, top=12)
    assert [r["file"] for r in words] == [
        r["file"] for r in find(made[0], query="a red hat", top=12)
    ]
    assert find(made[0], query="a red hat", image=[file], top=12) not in (picture, words)


def test_filters(made: tuple[Path, list[Path]]) -> None:
    rows = find(made[0], query="a dog", where="year >= 2009", top=10)
    assert {Path(row["file"]).name for row in rows} == {"009.png", "010.png", "011.png"}


def test_a_folder_is_indexed_on_the_way(bundle: Path, tmp_path: Path) -> None:
    files = paint(tmp_path / "pictures", 3)
    keys = {"query": str(files[1]), "index": str(tmp_path / "index"), "top": 1}
    folder = str(tmp_path / "pictures")
    for count in (3, 4):
        result, _ = perform(search, bundle, folder=folder, **keys)
        assert result.answer["results"][0]["file"] == str(files[1])
        with open_store(tmp_path / "index") as store:
            assert len(store) == count
        shutil.copy(files[0], tmp_path / "pictures" / "more.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="There is no picture in the folder"):
        perform(search, bundle, folder=str(tmp_path / "empty"), **keys)


def test_duplicates_are_folded(bundle: Path, tmp_path: Path) -> None:
    files = paint(tmp_path / "pictures", 3)
    twin = tmp_path / "pictures" / "twin.png"
    shutil.copy(files[0], twin)
    perform(index, bundle, folder=str(tmp_path / "pictures"), index=str(tmp_path / "index"))
    rows = find(tmp_path / "index", query=str(files[0]), group=True, alike=0.9999)
    assert rows[0]["file"] == str(files[0])
    assert rows[0]["duplicates"] == [str(twin)]
    assert len(rows) == 3
    assert "missing_duplicates" not in rows[0]
    copy = str(shutil.copy(files[0], tmp_path / "query.png"))
    twin.unlink()
    files[2].unlink()
    keys = {"query": copy, "index": str(tmp_path / "index"), "group": True, "alike": 0.9999}
    result, _ = perform(search, None, **keys)
    rows = result.answer["results"]
    assert (rows[0]["file"], rows[0]["missing_duplicates"]) == (str(files[0]), [str(twin)])
    assert [row.get("missing", False) for row in rows].count(True) == 1
    assert result.answer["warnings"][0].startswith("2 of 4 results are files that are not there")
    assert str(result.files["results.csv"]).splitlines()[1].endswith(f"{twin},{twin}")


def test_a_long_query_works_and_says_that_it_was_cut(made: tuple[Path, list[Path]]) -> None:
    result, _ = perform(search, None, query="cat " * 1250, index=str(made[0]), top=2)
    assert len(result.answer["results"]) == 2
    assert "this scorer reads 24" in result.answer["warnings"][0]


def test_a_corrupt_shard_is_named_and_the_rest_served(bundle: Path, tmp_path: Path) -> None:
    paint(tmp_path / "pictures", 6)
    place = tmp_path / "index"
    perform(index, bundle, folder=str(tmp_path / "pictures"), index=str(place), commit=3)
    broken = sorted((place / "vectors").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:-1])
    result, _ = perform(search, None, query="a dog", index=str(place))
    assert len(result.answer["results"]) == 3
    assert broken.name in result.answer["warnings"][0]


def test_an_index_made_with_another_model(
    made: tuple[Path, list[Path]], bundle: Path, tmp_path: Path
) -> None:
    other = write_clip(tmp_path / "other", seed=5)
    with pytest.raises(StoreError) as caught:
        find(made[0], query="a dog", scorer=f"local-dir:{other}")
    assert str(bundle) in str(caught.value)
    assert str(other) in str(caught.value)
    with pytest.raises(StoreError, match="was made with the scorer"):
        perform(index, other, folder=str(made[1][0].parent), index=str(made[0]))


@pytest.mark.parametrize("query", ["", "   "])
def test_an_empty_query(made: tuple[Path, list[Path]], query: str) -> None:
    with pytest.raises(UsageError, match="The query is empty"):
        find(made[0], query=query)


def test_places_that_cannot_be_searched_or_indexed(
    made: tuple[Path, list[Path]], bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="There is no index in"):
        find(tmp_path, query="a dog")
    with pytest.raises(ImageError, match=r"gone\.png"):
        find(made[0], image=["gone.png"])
    with pytest.raises(UsageError, match="There is no picture in the folder"):
        perform(index, bundle, folder=str(tmp_path), index=str(tmp_path / "index"))
    assert not (tmp_path / "index").exists()
    with pytest.raises(UsageError, match="There is no folder"):
        perform(index, bundle, folder=str(tmp_path / "gone"), index=str(tmp_path / "index"))


def test_the_scorer_is_named_in_the_index(made: tuple[Path, list[Path]], bundle: Path) -> None:
    with open_store(made[0]) as store:
        assert store.model == f"local-dir:{bundle.resolve()}"
        assert len(store.fingerprint) == 64


def test_a_folder_that_moved_is_marked_told_and_pruned(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    keys = {"index": str(place)}
    paint(tmp_path / "old", 3)
    perform(index, bundle, folder=str(tmp_path / "old"), **keys)
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new" / "clip.HEIC").write_bytes(b"x")
    (tmp_path / "new" / "metadata.csv").write_text("file,tag\nnone.png,x\n")
    with pytest.raises(UsageError, match=r"of it stays.*--prune"):
        perform(index, bundle, folder=str(tmp_path / "old"), **keys)
    answer = perform(index, bundle, folder=str(tmp_path / "new"), **keys)[0].answer
    assert [each["file"] for each in answer["left_out"]] == [str(tmp_path / "new" / "clip.HEIC")]
    unmatched, lost = answer["warnings"]
    assert "1 rows match no file: metadata.csv, line 2: none.png" in unmatched
    assert f"{tmp_path / 'old'} (3)" in lost
    found, _ = perform(search, None, query="a dog", **keys)
    assert len(found.answer["results"]) == 6
    for row in found.answer["results"]:
        assert row.get("missing", False) == (not Path(row["file"]).exists())
    assert "3 of 6 results are files that are not there" in found.answer["warnings"][0]
    assert found.files["results.csv"].count(",missing\n") == 1 + 3
    assert not index.needs(index.Options(prune=True, **keys))
    answer = perform(index, None, prune=True, **keys)[0].answer
    assert answer == {"added": 0, "skipped": 0, "removed": 3, "total": 3}
    assert not any("missing" in row for row in find(place, query="a dog"))
    with pytest.raises(UsageError, match="No folder of pictures is given"):
        perform(index, None, **keys)


def test_a_folder_is_indexed_and_pruned_at_once(bundle: Path, tmp_path: Path) -> None:
    keys = {"index": str(tmp_path / "index")}
    for name in ("a", "b"):
        paint(tmp_path / name, 2)
        perform(index, bundle, folder=str(tmp_path / name), **keys)
    shutil.rmtree(tmp_path / "a")
    answer = perform(index, bundle, folder=str(tmp_path / "b"), prune=True, **keys)[0].answer
    assert answer == {"added": 0, "skipped": 2, "removed": 2, "total": 2}


def test_a_search_that_indexes_names_what_it_leaves_out(bundle: Path, tmp_path: Path) -> None:
    paint(tmp_path / "in", 1)
    (tmp_path / "in" / "bad.png").write_bytes(b"no")
    (tmp_path / "in" / "clip.mov").write_bytes(b"x")
    (tmp_path / "in" / "metadata.jsonl").write_text('{"file_name": "none.png"}')
    keys = {"folder": str(tmp_path / "in"), "index": str(tmp_path / "index")}
    told = perform(search, bundle, query="a dog", **keys)[0].answer["warnings"]
    assert [line.split(":")[1 if "row" in line else 0].strip() for line in told] == [
        "1 rows match no file", "1 files are left out", "1 pictures cannot be read"
    ]  # fmt: skip
