"""The prior's training on tiny parts: batches, loss in closed form, learning, what is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guided.generators.unclip import load_prior
from guided.scorers.clip import ClipScorer
from guided.training.fit import fit
from guided.training.objective import BatchContext, TrainingContext
from guided.training.objectives import prior as module
from guided.training.objectives.prior import PriorBatch
from guided.worlds.portraits.training.prior import PriorObjective, PriorSettings
from guided.worlds.portraits.training.world_data import Pool
from tests.helpers import unclip_models

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer


SMALL: dict[str, Any] = {
    "frozen": "fp32", "pictures": 64, "size": 32, "width": 16, "heads": 2, "layers": 1, "words": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pools = tmp_path_factory.mktemp("pools")
    pool = Pool.open(pools, seed=0, split="train", size=32, count=64, workers=1)
    pool.wait()
    pool.close()
    return pools


@pytest.fixture(scope="module")
def small(bundle: Path) -> dict[str, Any]:
    return {**SMALL, "scorer": f"local-dir:{bundle}"}


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MONITOR_COUNT", 8)
    monkeypatch.setattr(module, "STEPS", 2)


@pytest.fixture(scope="module")
def objective(small: dict[str, Any], pools: Path) -> PriorObjective:
    return PriorObjective(PriorSettings(**small), TrainingContext(pools=pools))


def test_features_are_the_clips_and_are_kept(objective: PriorObjective) -> None:
    cache, rows = objective.cache, np.array([5, 3, 60])
    (features,) = cache.take(rows)
    images = objective.dataset.pixels(rows) / 255
    with torch.no_grad():
        seen = objective.scorer.embed_images(images)
    torch.testing.assert_close(features, seen, atol=1e-3, rtol=1e-2)
    assert [path.name for path in cache.folder.glob("0*")] == ["00000.features.npy"]
    ctx = TrainingContext(pools=objective.ctx.pools, resident=True)
    resident = PriorObjective(objective.settings, ctx).cache
    torch.testing.assert_close(resident.take(rows)[0], features, atol=0, rtol=0)


def test_it_begins_with_the_statistics_of_the_data(objective: PriorObjective) -> None:
    torch.manual_seed(0)
    net: Any = objective.build()
    inside = net.normalize(objective.cache.take(np.arange(64))[0])
    torch.testing.assert_close(inside.mean(0), torch.zeros(24), atol=1e-3, rtol=0)
    torch.testing.assert_close(inside.std(0), torch.ones(24), atol=1e-3, rtol=0)
    assert not net.net.clip_mean.requires_grad


def test_two_processes_share_a_batch(objective: PriorObjective) -> None:
    whole = objective.batch(BatchContext(0, 3, 8))
    parts = [objective.batch(BatchContext(0, 3, 8, rank, 2)) for rank in range(2)]
    for name in ("image", "noise", "times"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name
    pooled = torch.cat([part.pooled for part in parts])
    torch.testing.assert_close(pooled, whole.pooled, atol=1e-5, rtol=1e-5)
    settings = objective.settings.model_copy(update={"text_dropout": 0.25})
    told = PriorObjective(settings, objective.ctx)
    silent = [told.batch(BatchContext(0, k, 64)).mask.sum(1) <= 2 for k in range(4)]
    assert float(torch.cat(silent).float().mean()) == pytest.approx(0.25, abs=0.08)


def test_the_true_embedding_has_no_error_and_a_blind_one_that_of_the_data(
    objective: PriorObjective,
) -> None:
    torch.manual_seed(0)
    net: Any = objective.build()
    batch = objective.batch(BatchContext(0, 0, 32))
    total, _ = objective.loss(net, batch, BatchContext(0, 0, 32))
    expected = net.normalize(batch.image).square().mean()
    assert float(total.detach()) == pytest.approx(float(expected), rel=1e-4)

    class Knowing(torch.nn.Module):
        normalize = staticmethod(net.normalize)

        def forward(self, given: Any, times: Any, *told: Any) -> Any:
            signal, noise = (each[times, None] for each in objective.levels)
            return (given - noise * batch.noise) / signal

    keep = batch.times < 900
    batch = PriorBatch(*(getattr(batch, name)[keep] for name in PriorBatch.__dataclass_fields__))
    assert float(objective.loss(Knowing(), batch, BatchContext(0, 0, 32))[0]) < 1e-6


def test_it_learns(objective: PriorObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().train()
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learnt, 5e-3, weight_decay=0)
    losses = []
    for position in range(50):
        share = BatchContext(0, position, 16)
        loss, _ = objective.loss(model, objective.batch(share), share)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None for p in learnt)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def recipe(pools: Path, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "objective": "prior", "samples": 64, "batch": 8, "lr": 2e-3, "warmup": 0, "ema": 16,
        "precision": "fp32", "checkpoint_minutes": 0, "monitor_samples": 32, "prefetch": 0,
        "report_steps": 1, "nice": 0, "device": "cpu", "work": str(work), "pools": str(pools),
        "settings": settings,
    }  # fmt: skip


def trained(table: dict[str, Any]) -> Any:
    steps = fit(table)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_resumed_run_ships_the_same_bits_and_they_load(
    small: dict[str, Any], pools: Path, scorer: ClipScorer, tmp_path: Path
) -> None:
    whole = trained(recipe(pools, tmp_path / "whole", small))
    table = recipe(pools, tmp_path / "parts", small)
    steps = fit(table)
    for _ in range(3):
        next(steps)
    steps.close()
    assert trained(table).files["model.safetensors"] == whole.files["model.safetensors"]
    assert {"monitor_cosine", "monitor_cosine_best4", "monitor_nearest"} <= set(
        whole.answer["metrics"]
    )
    found = load_prior(str(tmp_path / "whole" / "prior"), scorer.fingerprint)
    assert float(found.net.net.clip_std.min()) > 0
    assert found.scorer_sha256 == scorer.fingerprint


def test_the_recipe_is_one_and_fits_its_allotment(pools: Path) -> None:
    import tomllib

    from guided.nets.prior import PortraitPrior

    file = Path(__file__).resolve().parents[4] / "recipes" / "train" / "prior.toml"
    table = tomllib.loads(file.read_text("utf-8"))
    settings = PriorSettings(**table["settings"])
    net = PortraitPrior(
        settings.width, settings.heads, settings.layers, settings.words, text_width=192,
        embed_width=256,
    )  # fmt: skip
    assert 2 * sum(p.numel() for p in net.parameters()) <= 2 << 20
