"""guided models list, add, get, check."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from guided.cli.models import models
from guided.errors import MissingWeights, UnsafeWeights
from guided.zoo import checksums, hub


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDED_MODELS", str(tmp_path / "mine"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(hub, "cached", lambda card: None)
    checksums.forget()
    return tmp_path


def call(*words: str) -> Result:
    return CliRunner().invoke(models, list(words))


def answer(*words: str) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def weights(folder: Path) -> Path:
    file = folder / "net.pt"
    torch.save({"w": torch.ones(2, 3)}, file)
    return file


def test_list_shows_public_models_and_own_ones(own_folder: Path) -> None:
    rows = {row["name"]: row for row in answer("list")["models"]}
    assert rows["gpt2"]["place"] == "missing"
    assert rows["gpt2"]["file"] is None
    call("add", str(weights(own_folder)))
    rows = {row["name"]: row for row in answer("list")["models"]}
    assert rows["net"]["place"] == "yours"
    assert Path(rows["net"]["file"]).is_file()
    assert "net" in call("list").stdout
    roles = {row["role"] for row in answer("list", "--role", "language")["models"]}
    assert roles == {"language", "own"}


def test_add_and_get(own_folder: Path) -> None:
    added = answer("add", str(weights(own_folder)), "--name", "my-net")
    assert Path(added["file"]) == own_folder / "mine" / "my-net" / "net.pt"
    assert added["sha256"] == checksums.fresh_digest(Path(added["file"]))
    assert answer("get", "my-net")["place"] == "yours"


def test_get_says_what_is_missing_and_touches_no_network() -> None:
    result = call("get", "gpt2")
    assert isinstance(result.exception, MissingWeights)
    assert "guided models get gpt2 --online" in str(result.exception)


def test_an_unsafe_file_is_not_added(own_folder: Path) -> None:
    file = own_folder / "bad.pt"
    file.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert isinstance(call("add", str(file)).exception, UnsafeWeights)
    assert not (own_folder / "mine").exists()


def test_check_exits_1_on_damage(own_folder: Path) -> None:
    call("add", str(weights(own_folder)))
    mine = [row for row in answer("check")["results"] if row["place"] == "yours"]
    assert mine == [{"name": "net", "place": "yours", "error": ""}]
    file = own_folder / "mine" / "net" / "net.pt"
    state = file.stat()
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # looks unchanged: hashed anew anyway
    result = call("check", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["damaged"] == 1
    assert "net.pt is damaged" in next(row["error"] for row in report["results"] if row["error"])
    assert call("check").exit_code == 1
