from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from guided.core.prompts import embed_prompts
from guided.errors import CannotDo, UsageError
from guided.nets.mappers import STEP, LevelsMapper
from guided.training.objective import BatchContext, TrainingContext
from guided.training.objectives.mapper import MapperObjective, MapperSettings
from tests.helpers.tiny_edit import descend, write_models

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("models"))


def objective_of(
    models: dict[str, str], data: Path | None = None, **changes: object
) -> MapperObjective:
    keys = {"prompt": "a red hat", "frozen": "fp32", **models, **changes}
    return MapperObjective(MapperSettings(**keys), TrainingContext(data=data))


@pytest.fixture(scope="module")
def objective(models: dict[str, str]) -> MapperObjective:
    return objective_of(models, directional=0.5)


def test_random_portraits_near_the_mean(objective: MapperObjective) -> None:
    codes = objective.batch(BatchContext(0, 0, 6))
    assert codes.shape == (6, 8, 16)
    assert torch.equal(codes, objective.batch(BatchContext(0, 0, 6)))
    half = objective.batch(BatchContext(0, 0, 6, 1, 2))
    assert torch.allclose(half, codes[3:], atol=1e-6)


def test_own_latents(models: dict[str, str], tmp_path: Path) -> None:
    mine = torch.randn(5, 8, 16, generator=torch.Generator().manual_seed(0))
    torch.save(mine, tmp_path / "faces.pt")
    codes = objective_of(models, tmp_path).batch(BatchContext(0, 0, 4))
    assert all(any(torch.equal(code, each) for each in mine) for code in codes)
    (tmp_path / "faces.pt").unlink()
    with pytest.raises(CannotDo, match="holds no latent files"):
        objective_of(models, tmp_path).batch(BatchContext(0, 0, 4))
    torch.save(torch.zeros(2, 18, 512), tmp_path / "other.pt")
    with pytest.raises(CannotDo, match=r"takes W\+ codes \[N, 8, 16\]"):
        objective_of(models, tmp_path).batch(BatchContext(0, 0, 4))


def test_the_loss_is_the_weighted_sum_of_its_parts(objective: MapperObjective) -> None:
    torch.manual_seed(0)
    codes, model = objective.batch(BatchContext(0, 0, 3)), objective.build()
    loss, parts = objective.loss(model, codes, BatchContext(0, 0, 3))
    weights = {"clip": 1.0, "directional": 0.5, "identity": 0.1, "latent_l2": 0.8}
    assert set(parts) == set(weights)
    total = sum(weight * parts[name] for name, weight in weights.items())
    assert torch.allclose(loss, total)
    near = (STEP * model(codes)).square().mean()
    assert torch.allclose(parts["latent_l2"], near, atol=1e-6)


def test_a_few_steps_come_nearer_to_the_prompt(models: dict[str, str]) -> None:
    objective = objective_of(models, near=0.0)
    torch.manual_seed(0)
    model, share = objective.build().train(), BatchContext(0, 0, 4)
    codes = objective.batch(share)
    before = objective.monitor(model.eval())
    descend(objective, model.train(), codes, share, steps=30, rate=3.0)
    after = objective.monitor(model.eval())
    assert after["monitor_gain"] > before["monitor_gain"] + 0.005
    assert set(after) == {"monitor_gain", "monitor_change", "monitor_identity"}


def test_a_few_steps_move_as_the_words_do(objective: MapperObjective) -> None:
    torch.manual_seed(0)
    model, share = objective.build().train(), BatchContext(0, 0, 4)
    losses = descend(objective, model, objective.batch(share), share, steps=25, rate=1.0)
    assert losses[-1] < 0.9 * losses[0]


def test_texts_are_encoded_once(objective: MapperObjective) -> None:
    first, _ = embed_prompts(objective.scorer, ("a red hat",))
    inner = objective.scorer._scorer
    objective.scorer._scorer = None
    try:
        again, _ = embed_prompts(objective.scorer, ("a red hat",))
    finally:
        objective.scorer._scorer = inner
    assert torch.equal(first, again)


def test_levels_that_are_left_out_do_not_move(models: dict[str, str]) -> None:
    torch.manual_seed(0)
    model = objective_of(models, levels=("medium",)).build()
    change = model(torch.randn(2, 8, 16))
    assert not change[:, :4].any()
    assert bool(change[:, 4:].any())


def test_the_file_has_the_public_form(objective: MapperObjective, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = objective.build().eval()
    product = objective.product(model)
    assert product.tensors is not None
    assert all(name.startswith("mapper.") for name in product.tensors)
    save_file({k: v.contiguous() for k, v in product.tensors.items()}, tmp_path / "m.safetensors")
    again = LevelsMapper(16)
    objective.restore(again, product.tensors)
    codes = torch.randn(2, 8, 16)
    assert torch.equal(again(codes), model(codes))
    assert "a red hat" in product.notes


def test_settings_are_checked_before_anything_is_loaded(models: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="not a number other than 0"):
        objective_of(models, prompt="a hat::0")
    with pytest.raises(CannotDo, match="no embedder is named"):
        objective_of(models, identity="")
    assert objective_of(models, identity="", same=0.0).models == {}


def test_the_recipe_is_valid() -> None:
    table = tomllib.loads((ROOT / "recipes/train/mapper.toml").read_text("utf-8"))
    assert MapperSettings(**table["settings"]).prompt == "a person with pink hair"
