"""The script that judges captions, on tiny random models: all parts, stopped and gone on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guided.worlds.portraits.judging.runs import captions
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_language import write_language

Judged = Callable[..., int]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    monkeypatch.setattr(captions, "MEMORY", 20)
    monkeypatch.setattr(captions, "WORD_MODEL_TEXTS", 300)
    roles = {
        "scorer": write_clip(tmp_path / "clip"),
        "judge": write_clip(tmp_path / "judge", seed=1),
        "language": write_language(tmp_path / "language"),
    }
    words = ["--count", "3", "--puzzles", "3", "--batch", "2", "--out", str(tmp_path / "out")]
    for role, folder in roles.items():
        words += [f"--{role}", f"local-dir:{folder}"]

    def run(*more: str) -> int:
        return captions.main([*words, *more])

    return run


@pytest.mark.soak
def test_all_parts(judged: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judged("--splits", "val") == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "figures.json").read_text("utf-8"))
    assert list(found["val"]) == ["zerocap", "fuse", "unguided", "best-of-n", "retrieval", "truth"]
    assert found["val"]["truth"]["precision"] == 1.0
    assert found["val"]["truth"]["ratio"] == 1.0
    assert found["val"]["unguided"]["ratio"] > 1.5
    assert set(found["signs"]) == {"seen", "unseen"}
    assert set(found["sums"]) == {"w = 0", "w = 0.5", "w = 1.0"}
    assert "3 portraits" in said
    lines = (tmp_path / "out" / "captions.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 5 * 3 + 2 * 3 + 3 * 3


@pytest.mark.soak
def test_it_goes_on_where_it_stopped(
    judged: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--splits", "val", "--parts", "table", "--methods", "zerocap", "retrieval"]
    assert judged(*chosen, "--minutes", "1e-9") == 1
    assert "val/zerocap: 0 of 3 are done; run again to go on" in capsys.readouterr().out
    assert judged(*chosen) == 0
    file = tmp_path / "out" / "captions.jsonl"
    whole, table = file.read_bytes(), capsys.readouterr().out
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert judged(*chosen) == 0
    texts = [json.loads(line)["text"] for line in file.read_bytes().splitlines()]
    assert texts == [json.loads(line)["text"] for line in whole.splitlines()]
    assert judged(*chosen) == 0
    assert len(file.read_bytes().splitlines()) == 6
    assert "truth" in table
