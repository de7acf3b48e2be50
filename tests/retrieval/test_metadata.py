from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from guided.errors import UsageError
from guided.retrieval.metadata import typed
from guided.retrieval.scan import survey
from tests.retrieval.folder import fill


def said(folder: Path, **how: object) -> dict[str, dict]:
    """The metadata of each picture by its name within the folder."""
    return {
        Path(entry.file).relative_to(folder.resolve()).as_posix(): dict(entry.metadata)
        for entry in survey(folder, **how).entries
    }


def table(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    fill(folder, 2)
    fill(folder / "sub", 1, start=7)
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


A, B, SUB = "0000.png", "0001.png", "sub/0007.png"


FIRST, SECOND = '"file": "0000.png", "tag": "x"', '"file": "sub/0007.png", "tag": "y"'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", f"{{{FIRST}}}\n\n{{{SECOND}}}"),
        ("metadata.jsonl", f"{{{FIRST}}}\r\n" + '{"Image": "sub\\\\0007.png", "tag": "y"}'),
        ("metadata.jsonl", f"[\n{{{FIRST}}},\n{{{SECOND}}}]"),
        ("metadata.jsonl", f"[{{{FIRST}}}, {{{SECOND}}}]\n"),
        ("metadata.csv", "file,tag\n0000.png,x\nsub\\0007.png,y\n"),
        ("metadata.csv", "\ufeffFile Name;tag\r\n0000.PNG;x\r\nsub/0007.png;y\r\n"),
        ("metadata.csv", "sep=;\nfile;tag\n0000.png;x\nsub/0007.png;y\n"),
        ("metadata.csv", ",file,tag,\n0,0000.png,x,\n1,sub/0007.png,y,,\n"),
        ("metadata.tsv", "file\ttag\n0000.png\tx\nC:\\photos\\sub\\0007.png\ty\n"),
        ("metadata.json", f"[{{{FIRST}}}, {{{SECOND}}}]".replace("sub", "/old/sub")),
        ("metadata.json", '{"0000.png": {"tag": "x"}, "sub/0007.png": {"tag": "y"}}'),
        ("metadata.json", f'{{"count": 2, "results": [{{{FIRST}}}, {{{SECOND}}}]}}'),
    ],
)
def test_tables_of_every_form(tmp_path: Path, name: str, text: str) -> None:
    table(tmp_path, name, text)
    assert said(tmp_path) == {A: {"tag": "x"}, B: {}, SUB: {"tag": "y"}}
    assert survey(tmp_path).warnings == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252", "shift_jis"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "日本" if encoding == "shift_jis" else "Zürich"
    table(tmp_path, "metadata.csv", f"file,place\n0000.png,{text}\n", encoding)
    if encoding in ("cp1252", "shift_jis"):
        with pytest.raises(
            UsageError, match=r"metadata\.csv, line 2: not UTF-8.*cp1252.*shift_jis"
        ):
            survey(tmp_path)
        assert said(tmp_path, encoding=encoding)[A] == {"place": text}
    else:
        assert said(tmp_path)[A] == {"place": text}
    with pytest.raises(UsageError, match="There is no encoding 'klingon'"):
        survey(tmp_path, encoding="klingon")


def test_letters_composed_in_another_way(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café.png")
    (picture,) = fill(tmp_path, 1)
    picture.rename(tmp_path / name)
    line = json.dumps({"file": unicodedata.normalize("NFC", name), "tag": "x"})
    (tmp_path / "metadata.jsonl").write_text(line)
    assert said(tmp_path) == {name: {"tag": "x"}}


def test_rows_that_are_not_used_are_named_with_their_lines(tmp_path: Path) -> None:
    rows = ["file,tag", "0000.png,x", "gone.png,x", "0001.png,a,b", ",x", "0000.png,y"]
    table(tmp_path, "metadata.csv", "\n".join(rows + [f"lost{i}.png,x" for i in range(9)]))
    found = survey(tmp_path)
    assert [dict(entry.metadata) for entry in found.entries] == [{"tag": "y"}, {}, {}]
    lost, wrong, again = found.warnings
    assert lost.startswith("metadata.csv: 10 rows match no file: metadata.csv, line 3: gone.png, ")
    assert lost.endswith(" and 7 more")
    assert "2 rows cannot be used: metadata.csv, line 4: it has 3 values for 2 columns" in wrong
    assert "metadata.csv, line 5: it names no file" in wrong
    assert "metadata.csv, line 6: 0000.png" in again


def test_one_broken_line_and_foreign_tables_condemn_nothing(tmp_path: Path) -> None:
    path = table(tmp_path, "metadata.jsonl", '{"file": "0000.png", "v": NaN}\n{"file": \n[1]\n')
    (tmp_path / "._metadata.csv").write_bytes(b"\0\5\x16\7")
    (tmp_path / "history.jsonl").write_text("{")
    (tmp_path / "sub" / "metadata.csv").write_bytes(b"time,place\n1,Z\xfcrich\n")
    assert said(tmp_path)[A] == {"v": None}
    told = "\n".join(survey(tmp_path).warnings)
    assert "metadata.jsonl, line 2: not JSON" in told
    assert "metadata.jsonl, line 3: not a JSON object" in told
    assert "sub/metadata.csv" in told
    path.write_text("{")
    with pytest.raises(UsageError, match=r"m[^ ]*metadata\.jsonl name no file.*line 1: not JSON"):
        survey(tmp_path, metadata=path)


def test_metadata_elsewhere_and_in_folders_below(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    table(folder, "metadata.csv", "file,tag,year\n0000.png,x,1\n")
    (folder / "metadata.jsonl").write_text('{"file": "0000.png", "tag": "first"}')
    (folder / "sub" / "metadata.csv").write_text("file_name,tag\n0007.png,y\n")
    assert said(folder) == {A: {"tag": "first", "year": 1}, B: {}, SUB: {"tag": "y"}}
    (tmp_path / "other.csv").write_text("file,tag\nin/0000.png,z\n0001.png,w\n")
    assert said(folder, metadata=tmp_path / "other.csv") == {
        A: {"tag": "z"},
        B: {"tag": "w"},
        SUB: {},
    }


def test_texts_beside_pictures(tmp_path: Path) -> None:
    folder = table(tmp_path, "metadata.csv", "file,text,year\n0000.png,from a table,1\n").parent
    (folder / "0000.txt").write_text("beaten")
    (folder / "0001.caption").write_text("one\n\ntwo\n")
    (folder / "sub" / "0007.txt").write_bytes(b"Z\xfcrich")
    assert said(folder) == {
        A: {"text": "from a table", "year": 1}, B: {"text": ["one", "two"]}, SUB: {}
    }  # fmt: skip
    (told,) = survey(folder).warnings
    assert told.startswith("1 texts beside images are not used: ")
    assert "0007.txt, line 1: not UTF-8" in told
    assert said(folder, encoding="cp1252")[SUB] == {"text": "Zürich"}


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["2001", "", "1999"], [2001, None, 1999]),
        (["0.5", "nan", "-1e-3"], [0.5, None, -0.001]),
        (["00123", "45678"], ["00123", "45678"]),
        (["+4179", "12"], ["+4179", "12"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["Nan", "nan", "Bob"], ["Nan", "nan", "Bob"]),
        (["2020", "unknown", "1_000"], [2020, "unknown", "1_000"]),
        (["Infinity", "1e999"], ["Infinity", "1e999"]),
        (["0", "-0.0", "0.10"], [0, -0.0, 0.1]),
    ],
)
def test_a_column_decides_what_its_cells_are(cells: list[str], values: list[object]) -> None:
    found = [row["c"] for row in typed([{"c": cell} for cell in cells])]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
