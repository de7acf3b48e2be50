from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from guided.zoo.cards import card_from

ROOT = Path(__file__).resolve().parents[2]


def _script(name: str, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *words],
        capture_output=True, text=True, timeout=300, check=False, cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_an_unknown_model_is_told_with_those_there_are() -> None:
    done = _script("build_weights", "raeder")
    assert done.returncode == 2
    assert "there is no recipe 'raeder'; there are:" in done.stderr
    assert "reader" in done.stderr


def test_a_wrong_key_is_told_in_one_line(tmp_path: Path) -> None:
    done = _script("build_weights", "reader", "--set", "sampels=1", cwd=tmp_path)
    assert done.returncode == 1
    assert "Did you mean 'samples'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.soak
def test_a_recipe_trains_in_the_time_it_is_given(tmp_path: Path) -> None:
    small = ["settings.pictures=256", "settings.widths=[8,8,8]", "settings.features=32", "batch=32"]
    changes = [word for change in small for word in ("--set", change)]
    done = _script(
        "gpu", "train", str(ROOT / "recipes/train/reader.toml"), "--device", "cpu",
        "--minutes", "0.5", "--out", str(tmp_path / "out"), *changes, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    card = card_from(tomllib.loads((tmp_path / "out" / "card.toml").read_text("utf-8")), "card")
    assert card.role == "reader"
    assert load_file(tmp_path / "out" / "model.safetensors")
    assert card.metrics["new_clean_background"].floor == pytest.approx(0.13, abs=0.04)
