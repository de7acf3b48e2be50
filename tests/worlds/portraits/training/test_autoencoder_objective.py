"""The training of the autoencoder: what it minimises, and the folder it leaves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.errors import CorruptWeights
from guided.generators.diffusion.vae import load_autoencoder, preview_table, unit_latents
from guided.training.fit import fit
from guided.training.objective import BatchContext, TrainingContext
from guided.training.objectives import autoencoder as vae
from guided.training.objectives.autoencoder import Autoencoders
from guided.worlds.portraits.training.autoencoder import AutoencoderObjective, AutoencoderSettings
from guided.worlds.portraits.training.world_data import Pool
from guided.zoo.packing import load_weights

#: Pictures of 32 px in latents of 8 px; the CLIP left out.
SMALL = AutoencoderSettings(
    size=32, pictures=64, widths=(8, 16), channels=6, groups=2, tiny=8, tiny_blocks=(1, 1),
    features=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pools = tmp_path_factory.mktemp("pools")
    pool = Pool.open(pools, seed=0, split="train", size=32, count=64, workers=1)
    pool.wait()
    pool.close()
    return pools


@pytest.fixture(scope="module")
def objective(pools: Path) -> AutoencoderObjective:
    return AutoencoderObjective(SMALL, TrainingContext(pools=pools))


def built(seed: int = 0) -> Autoencoders:
    torch.manual_seed(seed)
    return Autoencoders(SMALL).eval()


def pictures(count: int = 4, size: int = 32) -> Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) - 1


# --------------------------------------------------------------------------- latents


def test_unit_latents_change_the_latents_and_not_the_pictures() -> None:
    model = built().requires_grad_(False)
    with torch.no_grad():
        for layer in (model.vae.quant_conv, model.vae.post_quant_conv):
            layer.bias.normal_()
    other = copy.deepcopy(model)
    mean = torch.tensor([0.3, -1.0, 0.1, 0.0, 0.5, -0.2])
    deviation = torch.tensor([0.5, 2.0, 0.1, 1.0, 0.7, 3.0])
    unit_latents(other.vae, other.tiny, mean, deviation)
    truth = pictures()
    before, after = (each.vae.encode(truth).latent_dist for each in (model, other))
    wanted = (before.mean - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
    torch.testing.assert_close(after.mean, wanted, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(after.std, before.std / deviation.view(-1, 1, 1))
    torch.testing.assert_close(
        other.vae.decode(after.mean).sample, model.vae.decode(before.mean).sample,
        atol=2e-5, rtol=2e-5,
    )  # fmt: skip
    guessed = (model.tiny.encode(truth).latents - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
    torch.testing.assert_close(other.tiny.encode(truth).latents, guessed, atol=2e-5, rtol=2e-5)


def test_the_preview_of_a_linear_world_is_exact() -> None:
    stream = torch.Generator().manual_seed(2)
    latents = torch.randn(3, 2, 4, 4, generator=stream)
    table = torch.tensor([[0.1, 0.2, 0.3], [-0.3, 0.0, 0.1], [0.05, -0.2, 0.0]])
    cells = torch.einsum("bchw,cr->brhw", latents, table[:2]) + table[2].view(1, 3, 1, 1)
    seen = cells.repeat_interleave(2, 2).repeat_interleave(2, 3)
    found, explained = preview_table(latents, seen)
    torch.testing.assert_close(torch.tensor(found), table, atol=1e-6, rtol=0)
    assert explained == pytest.approx(1, abs=1e-6)
    noise = torch.randn(seen.shape, generator=stream)
    assert preview_table(latents, noise)[1] < 0.5


# --------------------------------------------------------------------------- the loss


def test_parts_are_zero_for_what_is_perfect(objective: AutoencoderObjective) -> None:
    class Perfect(torch.nn.Module):
        def forward(self, truth: Tensor, *, tiny: bool) -> vae.Reconstruction:
            half = torch.ones(4, 3, 8, 8)
            mean = torch.stack([half[:2], -half[:2]], 1).flatten(0, 1)
            mean = mean * (255 / 256) ** 0.5  # deviation 1 for the 256 numbers of a channel
            return vae.Reconstruction(truth, mean, torch.zeros(4, 3, 8, 8), truth, mean)

    batch = objective.batch(BatchContext(0, 0, 4))
    total, parts = objective.loss(Perfect(), batch, BatchContext(0, 0, 4))
    assert {name: float(value) for name, value in parts.items() if name != "kl"} == pytest.approx(
        dict.fromkeys(("pixels", "edges", "unit", "l1", "latents", "tiny"), 0.0), abs=1e-6
    )
    assert float(parts["kl"]) == pytest.approx(0.5 * 255 / 256)  # mean square / 2
    assert float(total) == pytest.approx(5e-4 * 0.5 * 255 / 256, rel=1e-3)


def test_the_tiny_one_learns_alone_and_later(objective: AutoencoderObjective) -> None:
    late = AutoencoderObjective(SMALL.model_copy(update={"tiny_from": 8}), objective.ctx)
    model = built().train()
    batch = late.batch(BatchContext(0, 0, 4))
    pulls = []
    for position in (0, 2):
        torch.manual_seed(0)
        loss, parts = late.loss(model, batch, BatchContext(0, position, 4))
        model.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        assert ("tiny" in parts) == (position == 2)
        pulls.append([sum(float(p.grad.abs().sum()) for p in part.parameters())
                      for part in (model.vae, model.tiny)])  # fmt: skip
    assert pulls[0][1] == 0 < pulls[1][1]
    assert pulls[1][0] == pytest.approx(pulls[0][0], rel=1e-5)  # the tiny one only looks on


def test_the_maps_of_the_clip_are_compared(objective: AutoencoderObjective) -> None:
    seen = AutoencoderSettings(
        **{**SMALL.model_dump(), "features": 0.5, "frozen_precision": "fp32"}
    )
    full = AutoencoderObjective(seen, objective.ctx)
    assert full.scorer is not None
    model, batch = built(), full.batch(BatchContext(0, 0, 2))
    loss, parts = full.loss(model, batch, BatchContext(0, 0, 2))
    assert float(parts["features"]) > 0
    loss.backward()
    assert all(p.grad is None for p in full.scorer.model.parameters())


def test_it_learns(objective: AutoencoderObjective) -> None:
    model = built()
    before = objective.monitor(model)["monitor_l1"]
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0)
    batch, losses = objective.batch(BatchContext(0, 0, 8)), []
    for position in range(60):
        torch.manual_seed(position)
        loss, parts = objective.loss(model, batch, BatchContext(0, position, 8))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append({name: float(value) for name, value in parts.items()})
    for name in ("l1", "tiny", "unit"):
        assert losses[-1][name] < 0.6 * losses[0][name], name
    found = objective.monitor(model.eval())
    assert found["monitor_l1"] < 0.7 * before
    assert 0.5 < found["monitor_deviation"] < 1.5


# --------------------------------------------------------------------------- the product


def recipe(pools: Path, work: Path, **changes: Any) -> dict[str, Any]:
    return {
        "objective": "vae", "samples": 256, "batch": 8, "lr": 5e-3, "warmup": 0, "ema": 16,
        "weight_decay": 0.0, "clip": 10.0, "precision": "fp32", "checkpoint_minutes": 0,
        "monitor_samples": 0, "prefetch": 0, "nice": 0, "device": "cpu",
        "work": str(work), "pools": str(pools),
        "settings": {k: list(v) if isinstance(v, tuple) else v
                     for k, v in SMALL.model_dump().items()},
        **changes,
    }  # fmt: skip


def trained(table: dict[str, Any]) -> Any:
    steps = fit(table)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_trained_autoencoder_is_a_folder_of_diffusers(pools: Path, tmp_path: Path) -> None:
    result = trained(recipe(pools, tmp_path / "work"))
    place = tmp_path / "work" / "vae"
    found = load_autoencoder(place)
    assert (found.channels, found.factor) == (6, 4)
    objective = AutoencoderObjective(SMALL, TrainingContext(pools=pools))
    truth = objective.val_set
    latents = found.encode(truth / 2 + 0.5)
    assert latents.shape == (64, 6, 8, 8)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(6), atol=0.02)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(6), atol=0.02)
    made = found.decode(latents)
    metrics = result.answer["metrics"]
    expected = float((made - truth / 2 - 0.5).abs().mean())
    assert metrics["monitor_l1"] == pytest.approx(expected, rel=1e-3)
    assert 0.2 < metrics["preview_explained"] < 1
    assert len(found.preview) == 7
    given = found.decode(latents.requires_grad_()).sum()
    assert torch.autograd.grad(given, latents)[0].abs().sum() > 0
    model = Autoencoders(SMALL)
    tensors = {k: v.float() for k, v in load_weights(place / "vae" / vae.WEIGHTS).items()}
    objective.restore(model, tensors)
    torch.testing.assert_close(model.vae.encode(truth[:2]).latent_dist.mean, latents[:2])
    (place / "preview.json").write_text("[[1, 2, 3]]")
    with pytest.raises(CorruptWeights, match=r"preview\.json does not fit"):
        load_autoencoder(place)


def test_an_interrupted_training_goes_on_bit_for_bit(pools: Path, tmp_path: Path) -> None:
    table = recipe(pools, tmp_path / "whole", samples=96, report_steps=1)
    whole = trained(table)
    steps = fit({**table, "work": str(tmp_path / "parts")})
    for _ in range(5):
        next(steps)
    steps.close()
    again = trained({**table, "work": str(tmp_path / "parts")})
    name = f"vae/{vae.WEIGHTS}"
    assert again.files[name] == whole.files[name]
    assert again.files["tiny/" + vae.WEIGHTS] == whole.files["tiny/" + vae.WEIGHTS]
