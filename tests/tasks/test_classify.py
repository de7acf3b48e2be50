from __future__ import annotations

import json
from pathlib import Path

import pytest

from guided.errors import UsageError
from guided.scorers.clip import load_clip
from guided.tasks import classify
from tests.helpers.tiny_clip import write_clip
from tests.tasks.scoring import paint, perform

LABELS = ["hat", "dog", "sky"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("classify") / "clip")


def classified(bundle: Path, folder: Path, **keys: object) -> list[dict]:
    files = [str(file) for file in paint(folder / "pictures", 4)]
    keys.setdefault("cache", str(folder / "cache"))
    result, _ = perform(classify, bundle, images=files, **keys)
    return result.answer["results"]


def test_probabilities_are_the_softmax_of_scaled_cosines(bundle: Path, tmp_path: Path) -> None:
    rows = classified(bundle, tmp_path, label=LABELS, template=["a {}"])
    scorer = load_clip(f"local-dir:{bundle}")
    ((_, vectors),) = scorer.embed_files([row["file"] for row in rows])
    odds = (scorer.scale * vectors @ scorer.embed_texts([f"a {n}" for n in LABELS]).T).softmax(1)
    for row, expected in zip(rows, odds, strict=True):
        assert list(row["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
        assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["scores"], key=row["scores"].get)


def test_ensembles_and_class_files_differ_from_one_template(bundle: Path, tmp_path: Path) -> None:
    one = classified(bundle, tmp_path, label=LABELS)
    many = classified(bundle, tmp_path, label=LABELS, templates="openai")
    (tmp_path / "classes.json").write_text(json.dumps({n: [f"a photo of a {n}."] for n in LABELS}))
    own = classified(bundle, tmp_path, classes=str(tmp_path / "classes.json"))
    assert own == one
    assert many != one
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_no_cache_is_kept_where_none_is_wanted(bundle: Path, tmp_path: Path) -> None:
    classified(bundle, tmp_path, label=LABELS, cache="")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label": ["cat", "dog", "cat"]}, "Labels given twice: 'cat'"),
        ({"label": []}, "There is no label"),
        ({"label": ["cat"], "template": ["a photo"]}, "has no place for the label"),
        ({"label": ["cat"], "classes": "x.json"}, "--classes brings its own"),
        ({"classes": "nowhere.json"}, "cannot be read"),
    ],
)
def test_what_cannot_be_classified(bundle: Path, tmp_path: Path, keys: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        classified(bundle, tmp_path, **keys)
