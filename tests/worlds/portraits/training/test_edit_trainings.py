"""The trainings of what edits, from recipe to card, with everything cut to seconds."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.generators.e4e import load_inverter
from guided.generators.stylegan2 import load_stylegan2
from guided.nets.delta import build_delta
from guided.nets.mappers import build_mapper
from guided.scorers.identity import PortraitIdentity, load_identity
from guided.training.fit import fit
from guided.zoo.cards import card_from
from guided.zoo.packing import load_weights
from tests.helpers.tiny_edit import write_models
from tests.helpers.tiny_training import rest

TINY: dict[str, dict[str, Any]] = {
    "identity": {"widths": [8, 8, 8], "blocks": [0, 0, 0], "head": 4, "hidden": 16},
    "inverter": {
        "widths": [8, 8, 8], "blocks": [0, 0, 0], "head": 4, "hidden": 16, "paired": 0.0,
        "facts": 0.0, "drawn": 0.5, "frozen": "bf16",
    },
    "delta": {"middle": 16, "hidden": 16, "group": 2, "parts": "any", "frozen": "bf16"},
    "mapper": {"frozen": "bf16", "depth": 2},
}  # fmt: skip
ROLES = {
    "identity": (),
    "inverter": ("generator", "scorer", "identity"),
    "delta": ("generator", "scorer"),
    "mapper": ("generator", "scorer", "identity"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pools")


def recipe(name: str, models: dict[str, str], pools: Path, work: Path) -> dict[str, Any]:
    """The shipped recipe of an objective with tiny models, two steps of four samples."""
    file = Path(__file__).resolve().parents[4] / "recipes" / "train" / f"{name}.toml"
    table = tomllib.loads(file.read_text("utf-8"))
    settings = {**table["settings"], **TINY[name], **{r: models[r] for r in ROLES[name]}}
    if "pictures" in settings:
        settings["pictures"] = 64
    return {
        **table, "settings": settings, "samples": 8, "batch": 4, "monitor_samples": 0,
        "warmup": 0, "prefetch": 0, "nice": 0, "device": "cpu", "pools": str(pools),
        "work": str(work),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("identity", "inverter"):
        monkeypatch.setattr(f"guided.worlds.portraits.training.{name}.JUDGED", 4)
    monkeypatch.setattr("guided.worlds.portraits.training.identity.MONITOR_COUNT", 4)
    for name in ("inverter", "mapper"):
        monkeypatch.setattr(f"guided.training.objectives.{name}.MONITOR_COUNT", 4)
    monkeypatch.setattr("guided.worlds.portraits.training.delta.LOOKS", 1)


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_recipe_ends_in_a_model_with_a_card(
    name: str, models: dict[str, str], pools: Path, tmp_path: Path
) -> None:
    _, result = rest(fit(recipe(name, models, pools, tmp_path)))
    assert result.answer["finished"]
    folder = Path(result.answer["folder"])
    card = card_from(tomllib.loads((folder / "card.toml").read_text("utf-8")), "card")
    assert card.role == name
    assert card.metrics
    state = load_weights(folder / card.file)
    if name == "identity":
        assert isinstance(load_identity(folder / card.file), PortraitIdentity)
    elif name == "inverter":
        average = load_stylegan2(models["generator"]).average
        inverter = load_inverter(folder / card.file, average)
        assert inverter.invert(torch.rand(1, 3, 32, 32))["w"].shape == (1, 8, 16)
    elif name == "delta":
        assert build_delta(state).rows == 8
    else:
        build_mapper({key.removeprefix("mapper."): value for key, value in state.items()})
