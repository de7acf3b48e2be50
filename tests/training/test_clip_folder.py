"""A CLIP of one's own: 64 emoji and their captions, from the folder to every verb."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from guided.cli import main

ROOT = Path(__file__).parents[2]
EMOJI = ROOT / "tests" / "golden" / "emoji"
RECIPE = ROOT / "recipes" / "train" / "clip_folder.toml"
TINY = (
    "samples=2688", "minutes=900", "batch=48", "lr=3e-3", "warmup=192", "ema=96", "threads=1",
    "nice=0", "monitor_samples=0", "precision=fp32", "settings.embed=64",
    "settings.vision.image_size=32",
    "settings.vision.layers=[1, 1, 1, 1]", "settings.vision.width=8", "settings.text.width=64",
    "settings.text.heads=2", "settings.text.layers=1", "settings.text.context_length=16",
    "settings.vocabulary=400", "settings.vision.head_width=32", "settings.augment=0.5",
)  # fmt: skip


def train(data: Path, work: Path, *sets: str) -> int:
    """``guided train clip_folder.toml`` at a size for tests; its exit status."""
    words = [word for each in (f"work={work}", *TINY, *sets) for word in ("--set", each)]
    return main(["train", str(RECIPE), "--data", str(data), *words, "--json", "--quiet"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CLIP that was trained on the emoji."""
    here = tmp_path_factory.mktemp("emoji")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert train(EMOJI, here / "work") == 0
    return here / "work" / "clip_folder"


def ask(capsys: pytest.CaptureFixture[str], model: Path, *words: str | Path) -> dict[str, Any]:
    """A verb's answer with that CLIP."""
    capsys.readouterr()
    given = [*map(str, words), "--scorer", f"local-dir:{model}", "--json", "--quiet"]
    assert main(given) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_it_knows_its_images_by_more_than_luck(model: Path) -> None:
    card = tomllib.loads((model / "card.toml").read_text("utf-8"))
    for side in ("text", "image"):
        own = card["metrics"][f"trained_recall_{side}_at_1"]
        assert own["floor"] < 0.1
        assert own["value"] > 0.5  # by guessing about one of fifteen
        held = card["metrics"][f"recall_{side}_at_5"]
        assert held["floor"] == pytest.approx(5 / 16, abs=0.05)
        assert held["ceiling"] == 1
    assert card["licence"] == "unknown"
    notes = card["notes"]
    for part in ("64 images with 127 captions", "16 images held out", "32 x 32", " s.", "chance"):
        assert part in notes
    assert "portrait" not in notes
    assert 300 <= json.loads((model / "open_clip_config.json").read_text())["model_cfg"][
        "text_cfg"
    ]["vocab_size"] <= 400  # fmt: skip


def test_every_verb_takes_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = _trained_names(model)
    names = [name.removesuffix(".png").replace("-", " ") for name in trained]
    images = [EMOJI / name for name in trained]

    scores = ask(
        capsys, model, "score", *images[:6], *(w for n in names[:6] for w in ("--text", n))
    )
    right = [
        max(row["scores"], key=row["scores"].get) == name
        for row, name in zip(scores["results"], names[:6], strict=True)
    ]
    assert sum(right) >= 4

    labels = [w for n in names[:6] for w in ("--label", n)]
    answer = ask(capsys, model, "classify", *images[:6], *labels, "--template", "{}")
    assert sum(r["label"] == n for r, n in zip(answer["results"], names[:6], strict=True)) >= 4

    index = tmp_path / "index"
    assert ask(capsys, model, "index", EMOJI, "--index", index)["added"] == 64
    hits = [
        any(Path(r["file"]).name == trained[i] for r in ask(
            capsys, model, "search", names[i], "--index", index, "--top", "5")["results"])
        for i in range(4)
    ]  # fmt: skip
    assert sum(hits) >= 3  # by guessing one of thirteen each

    words = ("--mode", "fuse", "--beams", "1", "--length", "3")
    caption = ask(capsys, model, "caption", images[0], *words)
    assert caption["results"][0]["captions"][0]["text"]


def _trained_names(model: Path) -> list[str]:
    from guided.training.folder_pairs import FolderPairs

    pairs = FolderPairs(EMOJI, 32, "clip", model)
    return [Path(entry.name).name for entry in pairs.entries]


def test_the_same_data_goes_on_and_other_data_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    work = tmp_path / "work"
    shutil.copytree(model.parent, work)
    weights = work / "clip_folder" / "open_clip_model.safetensors"
    before = weights.read_bytes()
    moved = tmp_path / "elsewhere"
    shutil.copytree(EMOJI, moved)
    for file in moved.iterdir():
        file.touch()
    (moved / "unrelated.md").write_text("no data")
    assert train(moved, work) == 0
    assert weights.read_bytes() == before
    table = moved / "captions.jsonl"
    table.write_text(table.read_text().replace("red apple", "apple, red"), "utf-8")
    capsys.readouterr()
    assert train(moved, work) == 1
    told = capsys.readouterr().err
    assert "began with other data" in told
    assert "--set name=" in told
    assert weights.read_bytes() == before
    shutil.rmtree(moved)
    assert train(moved, work) == 2
    assert f"There is no folder {moved}" in capsys.readouterr().err
