"""No code of a model folder is ever run, whatever role the folder is loaded in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What loading each hostile folder did, in a process with an audit hook."""
    root = tmp_path_factory.mktemp("hostile")
    home = {"HOME": str(root), "HF_HOME": str(root / "hub"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.zoo.watched_loading", str(root)],
        cwd=ROOT, env={**os.environ, **home}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads((root / "rows.json").read_text("utf-8"))
    return found


def test_the_hook_sees_code_that_runs(rows: list[dict[str, Any]]) -> None:
    control = rows[-1]
    assert control["ran"]
    for event in ("exec", "compile", "open"):
        assert any(each.startswith(event) for each in control["events"]), control


def test_nothing_of_a_folder_is_run_and_nothing_written(rows: list[dict[str, Any]]) -> None:
    for row in rows[:-1]:
        assert row["events"] == [], row
        assert not row["ran"], row


def test_hostile_folders_are_refused_by_file_and_key(rows: list[dict[str, Any]]) -> None:
    hostile = [row for row in rows[:-1] if not row["role"].startswith("sound")]
    assert len({row["role"] for row in hostile}) == 13
    for row in hostile:
        assert row["error"] == "UnsafeWeights", row
        assert row["status"] == 1, row
        assert row["file"] in row["message"], row
        assert row["key"] in row["message"], row
        assert len(row["message"]) < 2048, row
        assert "trust_remote_code=True" not in row["message"], row


def test_python_files_beside_sound_models_are_only_files(rows: list[dict[str, Any]]) -> None:
    sound = [row for row in rows if row["role"].startswith("sound")]
    assert len(sound) == 8
    for row in sound:
        assert row["error"] == "", row
