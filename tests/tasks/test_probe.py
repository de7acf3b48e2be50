from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load

from guided.errors import UsageError
from guided.tasks import probe
from tests.helpers.tiny_clip import write_clip
from tests.tasks.scoring import perform

COLOURS = {"blue": (20, 30, 220), "green": (20, 200, 40), "red": (220, 30, 20)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("probe") / "clip")


def paint_classes(folder: Path, count: int) -> None:
    dice = torch.Generator().manual_seed(0)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            shift = torch.randint(-15, 16, (3,), generator=dice).tolist()
            shade = tuple(max(0, c + s) for c, s in zip(colour, shift, strict=True))
            Image.new("RGB", (32, 32), shade).save(folder / label / f"{i:02d}.png")


def test_colours_are_in_the_features(bundle: Path, tmp_path: Path) -> None:
    paint_classes(tmp_path, 12)
    result, steps = perform(probe, bundle, folder=str(tmp_path), shots=[1, 4, 99], draws=2)
    answer = result.answer
    assert answer["classes"] == ["blue", "green", "red"]
    assert (answer["train"], answer["test"]) == (30, 6)
    assert answer["accuracy"] == 1
    low, high = answer["interval"]
    assert low < 0.7 < high == 1
    assert [point["shots"] for point in answer["curve"]] == [1, 4]
    assert 11 <= len(answer["sweep"]) <= 15
    assert answer["l2"] in [trial["l2"] for trial in answer["sweep"]]
    assert steps[-1].label == "4 shots"
    saved = load(result.files["probe.safetensors"])
    assert saved["weight"].shape == (3, 24)
    assert json.loads(result.files["probe.json"])["labels"] == answer["classes"]


def test_a_list_with_its_own_split(bundle: Path, tmp_path: Path) -> None:
    paint_classes(tmp_path, 4)
    lines = ["file,label,split"]
    for label in COLOURS:
        lines += [f"{label}/{i:02d}.png,{label},{'test' if i == 3 else 'train'}" for i in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    result, _ = perform(probe, bundle, folder=str(tmp_path / "list.csv"), l2=0.1, shots=[1])
    assert (result.answer["train"], result.answer["test"]) == (9, 3)
    assert result.answer["sweep"] == []
    assert result.answer["l2"] == 0.1


def test_a_list_of_another_program(tmp_path: Path) -> None:
    paint_classes(tmp_path, 1)
    lines = "File_Name;Label\r\nred\\00.png;007\r\nblue/00.png;\r\ngreen/00.png;Z\xfcrich\r\n"
    (tmp_path / "list.csv").write_bytes(lines.encode("cp1252"))
    with pytest.raises(UsageError, match="line 4: not UTF-8"):
        probe.read_labelled(tmp_path / "list.csv")
    listed, faults = probe.read_labelled(tmp_path / "list.csv", "cp1252")
    assert listed == [
        (str(tmp_path / "red" / "00.png"), "007", ""),
        (str(tmp_path / "green" / "00.png"), "Z\xfcrich", ""),
    ]
    assert faults == ["list.csv, line 3: it has no label"]


def test_folders_train_and_test(bundle: Path, tmp_path: Path) -> None:
    paint_classes(tmp_path / "train", 3)
    paint_classes(tmp_path / "test", 2)
    result, _ = perform(probe, bundle, folder=str(tmp_path), l2=1.0, shots=[])
    assert (result.answer["train"], result.answer["test"]) == (9, 6)


def test_a_picture_that_cannot_be_read_is_listed(bundle: Path, tmp_path: Path) -> None:
    paint_classes(tmp_path, 5)
    (tmp_path / "red" / "bad.png").write_bytes(b"no")
    result, _ = perform(probe, bundle, folder=str(tmp_path), l2=1.0, shots=[])
    assert result.answer["train"] + result.answer["test"] == 15
    assert result.answer["errors"][0]["file"].endswith("bad.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nx.png,\n", r"list\.csv, line 2: it has no label"),
        ("file,label,split\nx.png,a,val\n", "has the split 'val'"),
        ("file,label\nx.png,a\nx.png,b\n", "names a file more than once"),
        ("file,label\n", "no pictures in classes"),
    ],
)
def test_lists_that_make_no_sense(bundle: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        perform(probe, bundle, folder=str(tmp_path / "list.csv"))


def test_folders_that_make_no_sense(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        perform(probe, bundle, folder=str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="no pictures in classes"):
        perform(probe, bundle, folder=str(tmp_path))
    paint_classes(tmp_path / "few", 2)
    with pytest.raises(UsageError, match=r"Too few readable pictures .*: blue, green, red"):
        perform(probe, bundle, folder=str(tmp_path / "few"))
    paint_classes(tmp_path / "one", 3)
    for label in ("blue", "green"):
        for file in (tmp_path / "one" / label).iterdir():
            file.unlink()
    table = tmp_path / "table.csv"
    table.write_text("file,label\nnope.png,red\ngone.png,blue\n")
    with pytest.raises(UsageError, match=r"None of the 2 pictures .*nope\.png does not exist"):
        perform(probe, bundle, folder=str(table))
    with pytest.raises(UsageError, match="needs two classes; found: red"):
        perform(probe, bundle, folder=str(tmp_path / "one"))
