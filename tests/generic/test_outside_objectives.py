"""A training objective from outside the package: one file and an entry point."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import guided
from tests.helpers.installed import install

EMOJI = Path(__file__).parents[1] / "golden" / "emoji"
#: The user's file: the mean color of an image, learnt from its pixels.
CODE = """
import torch
from guided.training.objective import Metric, ObjectiveSettings, Product
from guided.training.pair_objective import PairObjective


class TintSettings(ObjectiveSettings):
    size: int = 8


class TintObjective(PairObjective):
    name = "tint"
    Settings = TintSettings

    @property
    def size(self):
        return self.settings.size

    def build(self):
        return torch.nn.Linear(3 * self.size**2, 3)

    def batch(self, share):
        return self.dataset.pixels(self.dataset.rows(share)[share.rows])

    def loss(self, model, batch, share):
        images = batch.float() / 255
        return (model(images.flatten(1)) - images.mean((2, 3))).square().mean(), {}

    def product(self, model):
        return Product("scorer", "tint", {"one": Metric(1.0)}, licence=self.dataset.licence)
"""
RECIPE = """
task = "train"
objective = "tint"
samples = 320
batch = 8
lr = 1e-2
warmup = 0
precision = "fp32"
monitor_samples = 0
report_steps = 1
nice = 0
work = "work"
[settings]
size = 4
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the user's that adds ``tint`` by an entry point."""
    site = install(tmp_path, monkeypatch, "guided.objectives", tint="tinting:TintObjective")
    (site / "tinting.py").write_text(CODE)
    (tmp_path / "tint.toml").write_text(RECIPE)
    monkeypatch.setitem(sys.modules, "tinting", None)  # forgotten again after the test
    monkeypatch.delitem(sys.modules, "tinting")
    monkeypatch.chdir(tmp_path)


def test_it_is_listed_and_trained_from_a_recipe(tmp_path: Path, guided_cli: Callable) -> None:
    listed = json.loads(guided_cli("list", "objectives", "--json").out)["objectives"]
    assert {"name": "tint", "data": "", "about": "from tinting"} in listed
    result = guided_cli("train", "tint.toml", "--data", str(EMOJI), "--json", "--quiet")
    assert json.loads(result.out)["finished"]
    rows = (tmp_path / "work" / "tint" / "losses.csv").read_text("utf-8").splitlines()
    loss = rows[0].split(",").index("loss")
    first, *_, last = (float(row.split(",")[loss]) for row in rows[1:])
    assert last < 0.5 * first


def test_it_is_trained_from_python_and_needs_its_folder(tmp_path: Path) -> None:
    keys = {"objective": "tint", "batch": 8, "lr": 1e-2, "warmup": 0, "precision": "fp32",
            "samples": 320, "monitor_samples": 0, "nice": 0, "settings": {"size": 4}}  # fmt: skip
    result = guided.train(**keys, data=EMOJI, work=tmp_path / "own").result()
    assert result.answer["samples"] == 320
    with pytest.raises(guided.GuidedError, match="learns from captioned images and none are given"):
        guided.train(**keys, work=tmp_path / "none").result()
    with pytest.raises(guided.GuidedError, match="no objective 'tent'"):
        guided.train(**{**keys, "objective": "tent"}, work=tmp_path / "none").result()
