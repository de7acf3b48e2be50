"""The training of the shipped diffusion model and of the latent scorer, on tiny parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load

from guided.core.objective import Objective
from guided.errors import CorruptWeights
from guided.generators.diffusion.portrait_folder import load_own
from guided.guidance.guided_denoiser import Guidance
from guided.losses.clip import Clip
from guided.scorers.clip import ClipScorer
from guided.scorers.latent import load_latent_scorer
from guided.training.fit import fit
from guided.training.objective import BatchContext, TrainingContext
from guided.training.objectives import denoiser as module
from guided.training.objectives.denoiser import NoisyBatch
from guided.training.objectives.latent_scorer import along
from guided.worlds.portraits.training.denoiser import DenoiserObjective, DenoiserSettings
from guided.worlds.portraits.training.latent_scorer import (
    LatentScorerObjective,
    LatentScorerSettings,
)
from guided.worlds.portraits.training.places import place_of
from guided.worlds.portraits.training.world_data import Pool
from tests.accelerator.simulated import accelerator
from tests.generators.test_own_model import made
from tests.helpers import small_own
from tests.helpers.tiny_clip import write_clip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pools = tmp_path_factory.mktemp("pools")
    pool = Pool.open(pools, seed=0, split="train", size=32, count=64, workers=1)
    pool.wait()
    pool.close()
    return pools


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_own.write_autoencoder(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def small(autoencoder: Path, bundle: Path) -> dict[str, Any]:
    return {
        "vae": str(autoencoder), "scorer": f"local-dir:{bundle}", "frozen": "fp32", "pictures": 64,
        "width": 16, "heads": 2, "layers": 1, "image_tokens": 2,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MONITOR_COUNT", 16), ("MADE", 4), ("STEPS", 2)):
        monkeypatch.setattr(module, name, value)


@pytest.fixture(scope="module")
def objective(small: dict[str, Any], pools: Path) -> DenoiserObjective:
    return DenoiserObjective(DenoiserSettings(**small), TrainingContext(pools=pools))


# --------------------------------------------------------------------------- what is read


def test_latents_are_those_of_the_pictures_and_are_kept(objective: DenoiserObjective) -> None:
    cache, rows = objective.cache, np.array([5, 3, 60])
    latents, features = cache.take(rows)
    images = objective.dataset.pixels(rows) / 255
    with torch.no_grad():
        expected = objective.autoencoder.encode(images)
        seen = objective.scorer.embed_images(images)
    torch.testing.assert_close(latents, expected, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(features, seen, atol=1e-3, rtol=1e-2)
    files = sorted(path.name for path in cache.folder.glob("0*"))
    assert files == ["00000.features.npy", "00000.latents.npy"]
    again = DenoiserObjective(objective.settings, objective.ctx)
    again.autoencoder.vae.requires_grad_(True)
    torch.testing.assert_close(again.cache.take(rows)[0], latents, atol=0, rtol=0)
    resident = DenoiserObjective(
        objective.settings, TrainingContext(pools=objective.ctx.pools, resident=True)
    )
    torch.testing.assert_close(resident.cache.take(rows)[0], latents, atol=0, rtol=0)


def test_two_processes_share_a_batch(objective: DenoiserObjective) -> None:
    whole = objective.batch(BatchContext(0, 3, 8))
    parts = [objective.batch(BatchContext(0, 3, 8, rank, 2)) for rank in range(2)]
    for name in ("latents", "noise", "times", "image", "image_mask"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name
    pooled = torch.cat([part.pooled for part in parts])
    torch.testing.assert_close(pooled, whole.pooled, atol=1e-5, rtol=1e-5)
    again = objective.batch(BatchContext(0, 3, 8))
    assert torch.equal(again.states, whole.states)


def test_rows_are_told_as_often_as_asked(objective: DenoiserObjective) -> None:
    settings = objective.settings.model_copy(
        update={"image_dropout": 0.5, "text_dropout": 0.2, "image_only": 0.5}
    )
    told = DenoiserObjective(settings, objective.ctx)
    batches = [told.batch(BatchContext(0, position, 64)) for position in range(12)]
    shown = torch.cat([each.image_mask for each in batches]).bool()
    silent = torch.cat([each.mask.sum(1) for each in batches]) <= 2
    assert float(shown.float().mean()) == pytest.approx(0.5, abs=0.06)
    assert float(silent[~shown].float().mean()) == pytest.approx(0.2, abs=0.06)
    assert float(silent[shown].float().mean()) == pytest.approx(0.6, abs=0.07)
    times = torch.stack([each.times.sort().values for each in batches])
    places = torch.arange(64) * 1000 / 64
    assert ((times >= places.floor()) & (times <= places + 1000 / 64)).all()


# --------------------------------------------------------------------------- what is minimised


def test_the_true_v_has_no_error(objective: DenoiserObjective) -> None:
    class True_(torch.nn.Module):
        def forward(self, given: Any, times: Any, *told: Any) -> Any:
            signal, noise = (each[times].view(-1, 1, 1, 1) for each in objective.levels)
            x0 = batch.latents
            eps = (given - signal * x0) / noise
            return signal * eps - noise * x0

    batch = objective.batch(BatchContext(0, 0, 16))
    keep = batch.times > 10  # where noise can be told from rounding
    batch = NoisyBatch(*(getattr(batch, name)[keep] for name in NoisyBatch.__dataclass_fields__))
    total, parts = objective.loss(True_(), batch, BatchContext(0, 0, 16))
    assert float(total) < 1e-5
    assert float(parts["v"]) < 1e-5


def test_a_blind_model_has_the_error_of_the_data(objective: DenoiserObjective) -> None:
    torch.manual_seed(0)
    model = objective.build()
    batch = objective.batch(BatchContext(0, 0, 64))
    total, parts = objective.loss(model, batch, BatchContext(0, 0, 64))
    signal, noise = (each[batch.times].view(-1, 1, 1, 1) for each in objective.levels)
    v = (signal * batch.noise - noise * batch.latents).square().mean((1, 2, 3))
    assert float(parts["v"]) == pytest.approx(float(v.mean()), rel=1e-4)
    snr = (signal / noise).square().flatten()
    expected = ((snr + 1).clamp(max=5) / (snr + 1) * v).mean()
    assert float(total.detach()) == pytest.approx(float(expected), rel=1e-4)


def test_muon_moves_the_matrices_of_the_blocks_and_nothing_else(
    objective: DenoiserObjective,
) -> None:
    named = dict(objective.build().named_parameters())
    moved = {name for name, parameter in named.items() if objective.hidden(name, parameter)}
    assert moved
    for name in moved:
        assert "transformer_blocks.0." in name
        assert "scale_shift_table" not in name
    for part in ("attn1.to_q", "attn2.to_out.0", "ff.net.2"):
        assert f"net.transformer_blocks.0.{part}.weight" in moved


def test_it_learns(objective: DenoiserObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().train()
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0)
    losses = []
    for position in range(60):
        share = BatchContext(0, position, 16)
        loss, _ = objective.loss(model, objective.batch(share), share)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_what_the_middle_tokens_tell_is_learnt_and_not_shipped(
    objective: DenoiserObjective, pools: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    settings = DenoiserSettings(**{**small, "layers": 2, "facts": 0.5, "read_after": 1})
    told = DenoiserObjective(settings, objective.ctx)
    torch.manual_seed(0)
    model, share = told.build(), BatchContext(0, 0, 32)
    batch = told.batch(share)
    assert batch.truth is not None
    assert batch.truth.shape == (32, 13)
    total, parts = told.loss(model, batch, share)
    plain, bare = objective.loss(told.inside(model), batch, share)
    assert float(parts["v"]) == pytest.approx(float(bare["v"]))
    assert float(total.detach() - plain.detach()) == pytest.approx(0.5 * float(parts["facts"]))
    total.backward()
    first, second = told.inside(model).net.transformer_blocks  # type: ignore[union-attr]
    assert first.ff.net[2].weight.grad.abs().max() > 0
    assert second.ff.net[2].weight.grad.abs().max() == 0  # the output is still nothing
    table = recipe(pools, tmp_path, "denoiser", {**small, "facts": 0.5, "read_after": 1})
    files = trained(table).files
    names = load(files["transformer/diffusion_pytorch_model.safetensors"])
    assert not [name for name in names if name.startswith(("read.", "net.net."))]
    assert set(names) == set(objective.build().state_dict())


def test_errors_count_more_where_a_word_lies_on_a_shirt(objective: DenoiserObjective) -> None:
    told = DenoiserObjective(
        objective.settings.model_copy(update={"sign_loss": 10.0}), objective.ctx
    )
    torch.manual_seed(0)
    model, share = told.build(), BatchContext(0, 0, 64)
    batch = told.batch(share)
    total, _ = told.loss(model, batch, share)
    plain, _ = objective.loss(model, batch, share)
    a, s = (each[batch.times].view(-1, 1, 1, 1) for each in told.levels)
    square = (a * batch.noise - s * batch.latents).square()  # of a model that says nothing
    more = (square * told.lettered).mean((1, 2, 3))
    snr = (a / s).square().flatten()
    expected = 10 * ((snr + 1).clamp(max=5) / (snr + 1) * more).mean()
    assert float(total.detach() - plain.detach()) == pytest.approx(float(expected), rel=1e-3)


def test_a_word_lies_low_in_the_middle_of_a_portrait() -> None:
    place = place_of("sign", 16, people=6)
    assert place.shape == (16, 16)
    assert float(place.max()) == 1.0
    assert float(place[:12].max()) == 0.0
    assert float(place[12:, 4:12].sum()) == pytest.approx(float(place.sum()))
    with pytest.raises(ValueError, match="128 pixels do not make 24 equal parts"):
        place_of("sign", 24)


def test_reading_after_more_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="read_after is 3 and there are 2 layers"):
        DenoiserSettings(layers=2, facts=0.1)


# --------------------------------------------------------------------------- what is shipped


def recipe(pools: Path, work: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "objective": name, "samples": 64, "batch": 8, "lr": 2e-3, "warmup": 0, "ema": 16,
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


def test_a_trained_model_makes_pictures_and_a_student_of_it_guides(
    small: dict[str, Any],
    pools: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    table = recipe(pools, tmp_path / "whole", "denoiser", small)
    whole = trained(table)
    steps = fit({**table, "work": str(tmp_path / "parts")})
    for _ in range(3):
        next(steps)
    steps.close()
    again = trained({**table, "work": str(tmp_path / "parts")})
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert again.files[weights] == whole.files[weights]
    metrics = whole.answer["metrics"]
    assert {"monitor_v_words", "monitor_v_picture", "monitor_prefers_words"} <= set(metrics)
    scorer: ClipScorer = small_own.clip(bundle)
    folder = tmp_path / "whole" / "denoiser"
    model = load_own(folder, scorer)
    assert made(model).shape == (2, 3, 32, 32)

    table = recipe(pools, tmp_path, "latent_scorer",
                   {"denoiser": str(folder), "pictures": 64, "width": 16, "layers": 1})  # fmt: skip
    result = trained(table)
    metrics = result.answer["metrics"]
    assert {"monitor_cosine_05", "monitor_cosine_90", "monitor_slope"} <= set(metrics)
    student = load_latent_scorer(str(tmp_path / "latent_scorer"), scorer.fingerprint)
    guide = Guidance(
        objective=Objective.of(Clip("red")), scorer=scorer, scale=0.2, decode="latent",
        latent_scorer=student,
    )  # fmt: skip
    assert not torch.equal(made(model, guide), made(model))
    with pytest.raises(CorruptWeights, match="learnt from another CLIP"):
        load_latent_scorer(str(tmp_path / "latent_scorer"), "0" * 64)


Student = Callable[..., LatentScorerObjective]


@pytest.fixture
def student(pools: Path, autoencoder: Path, bundle: Path, tmp_path: Path) -> Student:
    folder = small_own.write_denoiser(tmp_path / "denoiser", autoencoder, bundle)

    def make(device: str = "cpu", **changes: Any) -> LatentScorerObjective:
        table = {"denoiser": str(folder), "pictures": 64, "width": 32, "layers": 1,
                 "frozen": "fp32", **changes}  # fmt: skip
        ctx = TrainingContext(pools=pools, device=torch.device(device))
        return LatentScorerObjective(LatentScorerSettings(**table), ctx)

    return make


def taught(objective: LatentScorerObjective, steps: int) -> tuple[Any, list[dict[str, float]]]:
    """A student after some steps, and the parts of its loss at each."""
    torch.manual_seed(0)
    model = objective.build().train()
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    seen = []
    for position in range(steps):
        share = BatchContext(0, position, 16)
        loss, parts = objective.loss(model, objective.batch(share), share)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append({name: float(part) for name, part in parts.items()})
    return model, seen


def test_the_student_learns(student: Student) -> None:
    _, seen = taught(student(), 40)
    assert set(seen[0]) == {"apart", "relation"}
    assert np.mean([row["apart"] for row in seen[-5:]]) < 0.5 * seen[0]["apart"]


def test_a_batch_on_an_accelerator(student: Student) -> None:
    wanted = student().batch(BatchContext(0, 0, 4)).latents
    with accelerator():
        found = student("cuda").batch(BatchContext(0, 0, 4)).latents
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), wanted, atol=1e-4, rtol=1e-4)


def test_the_teachers_gradient_is_that_of_the_decoded_picture(student: Student) -> None:
    objective = student()
    stream = torch.Generator().manual_seed(0)
    latents = torch.randn(20, 6, 8, 8, generator=stream)
    way = F.normalize(torch.randn(20, 384, generator=stream), dim=1).view_as(latents)
    asked = objective.noisy.scorer.embed_texts(["red hair", "a hat"]).float().repeat(10, 1)
    found = (objective.teacher_gradient(latents, asked) * way).flatten(1).sum(1)

    def said(step: float) -> torch.Tensor:
        pictures = objective.noisy.autoencoder.decode(latents + step * way)
        return (objective.noisy.scorer.embed_images(pictures) * asked).sum(1)

    with torch.no_grad():
        wanted = (said(0.02) - said(-0.02)) / 0.04
    torch.testing.assert_close(found, wanted, atol=0.02 * float(wanted.abs().max()), rtol=0.05)


def test_lessons_are_kept_with_the_teachers_gradients(student: Student) -> None:
    objective, share = student(slope=1.0), BatchContext(0, 0, 16)
    lesson = objective.batch(share)
    assert lesson.slope is not None
    true = objective.teacher_gradient(lesson.latents, lesson.asked)
    assert along(lesson.slope, true).min() > 0.99
    assert 0 < int((lesson.levels == 0).sum()) < 16
    folder = objective.targets.folder
    times = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = student(slope=1.0)
    assert torch.equal(again.batch(share).slope, lesson.slope)
    assert not torch.equal(again.batch(BatchContext(0, 1, 16)).slope, lesson.slope)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == times
    assert student(slope=1.0, clean=0.5).targets.folder != folder
    # Without gradients every visit has noise of its own.
    assert student().batch(share).slope is None


def test_the_student_learns_to_rise_where_its_teacher_does(student: Student) -> None:
    objective = student(slope=1.0)
    model, seen = taught(objective, 40)
    assert np.mean([row["slope"] for row in seen[-5:]]) < 0.75 * seen[0]["slope"]
    assert seen[-1]["apart"] < 0.6 * seen[0]["apart"]
    led = objective.monitor(model.eval())["monitor_slope"]
    unled = student()
    assert led > unled.monitor(taught(unled, 40)[0].eval())["monitor_slope"] + 0.1
