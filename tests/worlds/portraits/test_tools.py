from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from guided.worlds.portraits.tools import run_tool, tool_names
from guided.zoo.cards import card_from

pytestmark = pytest.mark.soak


ROOT = Path(__file__).resolve().parents[3]


def _script(name: str, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *words],
        capture_output=True, text=True, timeout=300, check=False, cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_an_unknown_recipe_is_named_with_those_there_are() -> None:
    done = _script("build", "raeder")
    assert done.returncode == 2
    assert "there is no recipe 'raeder'; there are:" in done.stderr
    assert "reader" in done.stderr
    assert "directions, mappers" in done.stderr


def test_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    done = _script("build", "reader", "--set", "sampels=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'samples'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_judge_is_wrong_usage_with_the_nearest_name() -> None:
    done = _script("judge", "diffusoin", "--count", "3")
    assert done.returncode == 2
    assert "there is no 'diffusoin'; there are: captions, clip, diffusion," in done.stderr
    assert "Did you mean 'diffusion'?" in done.stderr


def test_a_judge_without_its_model_ends_in_one_line() -> None:
    done = _script("judge", "people", "identity", "--name", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no model called 'nowhere'")
    assert "Traceback" not in done.stderr


def test_judge_alone_lists_the_judges() -> None:
    done = _script("judge")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"NAME: {', '.join(tool_names('judging/runs'))}"


@pytest.mark.parametrize("name", tool_names("judging/runs"))
def test_the_help_of_a_judge_explains_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_tool("judging/runs", name, ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: scripts/judge {name} ")
    assert f"scripts/judge {name}" in text.partition("options:")[0].partition("\n\n")[2]


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
