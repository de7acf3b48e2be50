from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from guided.errors import CannotDo, UsageError
from guided.scorers.clip import load_clip
from guided.tasks import score
from guided.tasks.base import TaskContext
from tests.helpers.tiny_clip import write_clip
from tests.tasks.scoring import paint, perform


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("score") / "clip")


def test_every_picture_with_every_text(bundle: Path, tmp_path: Path) -> None:
    files, texts = paint(tmp_path, 3), ["a red hat", "a dog"]
    result, steps = perform(score, bundle, images=[str(f) for f in files], text=texts)
    scorer = load_clip(f"local-dir:{bundle}")
    ((_, rows),) = scorer.embed_files(files)
    cosines = rows @ scorer.embed_texts(texts).T
    for i, row in enumerate(result.answer["results"]):
        assert row["file"] == str(files[i].absolute())
        assert list(row["scores"]) == texts
        assert list(row["scores"].values()) == pytest.approx(cosines[i].tolist(), abs=1e-5)
    assert [step.index for step in steps] == [3]
    assert set(result.answer) == {"results"}


def test_files_that_cannot_be_read_are_listed(bundle: Path, tmp_path: Path) -> None:
    (good,) = paint(tmp_path, 1)
    names = [str(tmp_path / "gone.png"), str(good)]
    result, _ = perform(score, bundle, images=names, text=["a"])
    assert [row["file"] for row in result.answer["results"]] == [str(good)]
    ((error),) = result.answer["errors"]
    assert error["file"].endswith("gone.png")
    assert "gone.png" in error["error"]


def test_a_text_of_5000_characters_is_scored_and_reported(bundle: Path, tmp_path: Path) -> None:
    (file,) = paint(tmp_path, 1)
    long = "cat " * 1250
    result, _ = perform(score, bundle, images=[str(file)], text=[long])
    assert -1 <= result.answer["results"][0]["scores"][long] <= 1
    (warning,) = result.answer["warnings"]
    assert "5000 characters" in warning
    assert "this scorer reads 24" in warning


def test_pictures_in_memory(bundle: Path, tmp_path: Path) -> None:
    (file,) = paint(tmp_path, 1)
    ctx = TaskContext(
        device_name="cpu", kit={"scorer": f"local-dir:{bundle}"},
        given={"given-1.png": Image.open(file)},
    )  # fmt: skip
    steps = score.run(score.Options(images=["given-1.png", str(file)], text=["a"]), ctx)
    next(steps)
    with pytest.raises(StopIteration) as end:
        next(steps)
    held, saved = end.value.value.answer["results"]
    assert held["file"] == "given-1.png"
    assert held["scores"] == pytest.approx(saved["scores"], abs=1e-6)


def test_what_cannot_be_scored(bundle: Path, tmp_path: Path) -> None:
    (file,) = paint(tmp_path, 1)
    with pytest.raises(UsageError, match="A text is empty"):
        perform(score, bundle, images=[str(file)], text=["a", "  "])
    with pytest.raises(CannotDo, match="No scorer is named"):
        perform(score, None, images=[str(file)], text=["a"])
    with pytest.raises(ValidationError):
        score.Options(images=[], text=["a"])
    with pytest.raises(ValidationError):
        score.Options(images=["x.png"], text=[])
