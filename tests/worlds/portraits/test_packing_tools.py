"""Shipped models are packed by a tool, and their training's figures measured again by another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guided.training.objective import Metric, TrainingContext, TrainingObjective
from guided.worlds.portraits.building import pack as packing
from guided.worlds.portraits.judging.runs import training
from guided.zoo.cards import CARD_FILE, Card, read_card, write_card
from guided.zoo.cards import Metric as Figure
from guided.zoo.checksums import fresh_digest, verify
from guided.zoo.packing import load_weights, save_weights


def _model(folder: Path, tensors: Mapping[str, Tensor], file: str = "model.safetensors") -> Card:
    """A shipped model's folder."""
    (folder / file).parent.mkdir(parents=True)
    save_weights(folder / file, tensors)
    others = {path.name: fresh_digest(path) for path in folder.glob("*.json")}
    card = Card(
        name=folder.name, role="own", kind="own", file=file, licence="Apache-2.0",
        sha256=fresh_digest(folder / file), size=(folder / file).stat().st_size, parameters=1,
        recipe="r", data_seed=0, git_revision="g", samples_seen=0, core_hours=0.0, grade="cpu",
        companions=others, metrics={"old": Figure(value=1.0), "sum": Figure(value=2.0)},
    )  # fmt: skip
    write_card(card, folder / CARD_FILE)
    return card


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of shipped models."""
    for tool in (packing, training):
        monkeypatch.setattr(tool, "SHIPPED", tmp_path)
    return tmp_path


def _weights() -> dict[str, Tensor]:
    return {"weight": torch.randn(80, 80, generator=torch.Generator().manual_seed(0))}


def test_packing_a_part_tells_those_that_know_it_by_its_hash(shipped: Path) -> None:
    before = _model(shipped / "vae", _weights(), "vae/model.safetensors")
    _model(shipped / "denoiser", _weights())
    (shipped / "denoiser" / "parts.json").write_text(json.dumps({"vae": before.sha256}), "utf-8")
    assert packing.main(["vae", "--version", "0.1.0"]) == 0
    after = read_card(shipped / "vae" / CARD_FILE)
    assert after.sha256 != before.sha256
    assert after.earlier == {"0.1.0": before.sha256}
    parts = json.loads((shipped / "denoiser" / "parts.json").read_text("utf-8"))
    assert parts == {"vae": after.sha256}
    for name in ("vae", "denoiser"):
        verify(shipped / name, read_card(shipped / name / CARD_FILE))
    assert load_weights(shipped / "denoiser" / "model.safetensors")["weight"].dtype == torch.float16


class _Sum(TrainingObjective[None]):
    """Figures that are a function of the weights."""

    name = "sum"

    def build(self) -> nn.Module:
        return nn.Linear(80, 80, bias=False)

    def batch(self, share: Any) -> None: ...

    def loss(self, model: nn.Module, batch: None, share: Any) -> Any: ...

    def card_figures(self, model: nn.Module) -> dict[str, Metric]:
        weight: Any = model.weight
        return {"sum": Metric(float(weight.sum()), 0.0)}


def test_figures_are_those_of_the_file_as_it_lies_there(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _model(shipped / "delta", _weights())
    assert packing.main(["delta"]) == 0
    monkeypatch.setattr(training, "find", lambda *_: _Sum({}, TrainingContext()))
    assert training.main(["delta", "--dry"]) == 0
    assert read_card(shipped / "delta" / CARD_FILE).metrics["sum"].value == 2.0
    assert training.main(["delta"]) == 0
    expected = float(load_weights(shipped / "delta" / "model.safetensors")["weight"].sum())
    metrics = read_card(shipped / "delta" / CARD_FILE).metrics
    assert metrics["sum"].value == pytest.approx(expected, abs=1e-3)
    assert metrics["old"].value == 1.0
    assert "card 2.00000" in capsys.readouterr().out
