from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from guided.training import distributed_muon
from guided.training.objective import TrainingContext
from guided.training.optimisers import Optimisers, optimiser_of, set_learning_rate
from guided.training.settings import TrainingSettings
from tests.helpers import tiny_training as tiny


def muon(model: nn.Module, **changes: object) -> Optimisers:
    objective = tiny.TinyObjective(tiny.TinySettings(), TrainingContext())
    settings = TrainingSettings(objective="tiny", optimiser="muon", **changes)  # type: ignore[arg-type]
    found = optimiser_of(objective, model, settings, torch.device("cpu"))
    assert isinstance(found, Optimisers)
    return found


def test_every_parameter_is_moved_by_one_optimiser_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5), nn.LayerNorm(5))
    model[3].weight.requires_grad_(False)
    both = muon(model)
    held = [id(p) for group in both.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [id(p) for p in both.each[0].param_groups[0]["params"]] == [id(model[2].weight)]


def test_a_hidden_matrix_moves_equally_far_in_every_direction() -> None:
    """The polar factor of the gradient, 0.2 sqrt(max(A, B)) long: AdamW's root mean square."""
    torch.manual_seed(0)
    layer = nn.Linear(48, 32)
    before = layer.weight.detach().clone()
    (layer(torch.randn(8, 48)).square()).sum().backward()
    both = muon(layer, muon_lr=5.0, weight_decay=0.0)
    set_learning_rate(both, 0.1)
    assert [group["lr"] for group in both.param_groups] == [0.5, 0.1, 0.1]
    both.step()
    moved = before - layer.weight.detach()
    lengths = torch.linalg.svdvals(moved)[:8] / (0.5 * 0.2 * 48**0.5)
    assert ((lengths > 0.6) & (lengths < 1.3)).all()  # five steps of Newton and Schulz, in bf16


@pytest.mark.parametrize("able", [True, False])
def test_a_processor_without_bf16_products_moves_it_alike(
    monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    monkeypatch.setattr(distributed_muon, "multiplies_bf16", lambda device: able)
    stream = torch.Generator().manual_seed(0)
    one, other = (nn.Parameter(torch.zeros(24, 16)) for _ in range(2))
    ways = {"lr": 0.1, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}
    both = distributed_muon.DistributedMuon([one], **ways), torch.optim.Muon([other], **ways)
    for _ in range(3):
        one.grad = torch.randn(24, 16, generator=stream)
        other.grad = one.grad.clone()
        for each in both:
            each.step()
    assert torch.equal(one, other) == able
    torch.testing.assert_close(one, other, atol=0.02 * float(other.detach().abs().max()), rtol=0)


def test_a_resumed_training_with_muon_is_bit_identical(tmp_path: Path) -> None:
    def table(name: str) -> dict[str, object]:
        return tiny.recipe(tmp_path / name, optimiser="muon")

    whole = tiny.run(table("whole"))[1].files["model.safetensors"]
    assert tiny.run(table("parts"), stop_after=4)[1] is None
    parts = tiny.run(table("parts"))[1].files["model.safetensors"]
    plain = tiny.run(tiny.recipe(tmp_path / "plain"))[1].files["model.safetensors"]
    assert parts == whole
    assert not torch.equal(load(whole)["0.weight"], load(plain)["0.weight"])


def test_muon_learns(tmp_path: Path) -> None:
    steps, result = tiny.run(tiny.recipe(tmp_path, optimiser="muon", lr=0.05))
    assert steps[-1].losses["loss"] < 0.7 * steps[0].losses["loss"]
    assert result.answer["finished"]
