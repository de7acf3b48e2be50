from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from guided.core.seeds import Seeds
from guided.errors import CannotDo, RecipeError
from guided.generators.stylegan2 import load_stylegan2
from guided.nets.stylegan2 import StyleGAN2, StyleGAN2Shape
from guided.nets.stylegan2_formats import build_stylegan2
from guided.training import reconstruction_losses
from guided.training.fit import fit
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits.training import stylegan2
from guided.worlds.portraits.training.adversary import AdversaryPhase
from guided.worlds.portraits.training.latent_mapping import SCALE, trait_columns
from guided.worlds.portraits.training.latent_world import facts
from guided.worlds.portraits.training.stylegan2 import (
    PairedBatch,
    PairedGenerator,
    StyleGAN2Objective,
    StyleGAN2Settings,
)
from guided.worlds.portraits.training.stylegan2_form import TrainableStyleGAN2
from guided.worlds.portraits.training.stylespace import statistics
from guided.worlds.portraits.training.world_data import Pool
from tests.helpers.tiny_faces import no_noise

#: A generator of 32 px, and the CLIP left out.
SMALL = StyleGAN2Settings(pictures=64, channels=(16, 16, 16, 8), grown=64, features=0, style=128)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the training and the monitor's pictures at 32 px."""
    pools = tmp_path_factory.mktemp("pools")
    for seed, split in ((0, "train"), (stylegan2.MONITOR_SEED, "val")):
        pool = Pool.open(pools, seed=seed, split=split, size=32, count=64, workers=1)
        pool.wait()
        pool.close()
    return pools


@pytest.fixture(scope="module")
def objective(pools: Path) -> StyleGAN2Objective:
    return StyleGAN2Objective(SMALL, TrainingContext(pools=pools))


# --------------------------------------------------------------------------- the form


@pytest.fixture(scope="module")
def form() -> TrainableStyleGAN2:
    torch.manual_seed(0)
    made = TrainableStyleGAN2(StyleGAN2Shape(32, 24, 20, 3, (16, 12, 12, 8)))
    with torch.no_grad():
        for name, parameter in made.net.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return made.to(memory_format=torch.channels_last)


def test_it_draws_what_the_published_form_draws(form: TrainableStyleGAN2) -> None:
    net = build_stylegan2(form.export())
    z = torch.randn(3, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        w = net.mapping(z)
        torch.testing.assert_close(form.mapping(z), w)
        expected = net(net.spread(w), no_noise(net.shape))
        torch.testing.assert_close(form(w), expected, atol=2e-5, rtol=2e-5)
        plain = net(net.spread(w))  # the stored noise has no weight
        torch.testing.assert_close(form(w), plain, atol=2e-5, rtol=2e-5)


def test_a_lower_size_is_the_picture_of_that_level(form: TrainableStyleGAN2) -> None:
    w = torch.randn(2, 24, generator=torch.Generator().manual_seed(2))
    assert form(w, 16).shape == (2, 3, 16, 16)
    shape = StyleGAN2Shape(16, 24, 20, 3, (16, 12, 12))
    lower = StyleGAN2(shape)
    state = {k: v for k, v in form.export().items() if k in lower.state_dict()}
    lower.load_state_dict(state)
    with torch.no_grad():
        expected = lower(lower.spread(w), no_noise(shape))
        torch.testing.assert_close(form(w, 16), expected, atol=2e-5, rtol=2e-5)


def test_export_and_take_are_inverse(form: TrainableStyleGAN2) -> None:
    other = TrainableStyleGAN2(form.shape)
    other.take(form.export())
    for name, tensor in form.net.state_dict().items():
        torch.testing.assert_close(other.net.state_dict()[name], tensor)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.take({})


def test_under_autocast_maps_stay_in_half_precision_and_colours_do_not(
    form: TrainableStyleGAN2,
) -> None:
    kinds: set[torch.dtype] = set()
    hooks = [
        module.register_forward_hook(lambda m, i, o: kinds.add(o.dtype))
        for module in form.net.modules() if type(module).__name__ == "EqualLinear"
    ]  # fmt: skip
    w = torch.randn(2, 24, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        picture = form(w)
    for hook in hooks:
        hook.remove()
    assert kinds == {torch.bfloat16}
    assert picture.dtype == torch.float32
    with torch.no_grad():
        exact = form(w)
    assert float((picture - exact).abs().mean()) < 0.03 * float(exact.std())


# --------------------------------------------------------------------------- losses


def test_edges_are_differences_of_neighbours() -> None:
    ramp = torch.arange(5.0).expand(1, 3, 4, 5)
    found = reconstruction_losses.edges(ramp)
    assert found.shape == (1, 6, 3, 4)
    assert (found[:, :3] == 1).all()
    assert (found[:, 3:] == 0).all()


def test_detail_is_where_a_picture_is_unlike_its_surroundings() -> None:
    flat = torch.full((1, 3, 64, 64), 0.3)
    assert float(reconstruction_losses.detail(flat).abs().max()) < 1e-6
    dotted = flat.clone()
    dotted[..., 30:33, 30:33] = -1
    found = reconstruction_losses.detail(dotted)
    assert found.shape == (1, 1, 64, 64)
    assert float(found[0, 0, 31, 31]) == pytest.approx(1)
    assert float(found[0, 0, 5:10, 5:10].max()) == 0
    assert float(found.max()) <= 1


def test_equal_pictures_have_no_feature_distance_and_gradients_reach_the_made_ones(
    objective: StyleGAN2Objective,
) -> None:
    scorer = StyleGAN2Objective(StyleGAN2Settings(frozen="fp32"), objective.ctx).scorer
    assert scorer is not None
    stream = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 64, 64, generator=stream) * 2 - 1
    assert float(reconstruction_losses.feature_distance(scorer, truth, truth)) == 0
    made = (0.9 * truth).requires_grad_()
    distance = reconstruction_losses.feature_distance(scorer, made, truth)
    (pull,) = torch.autograd.grad(distance, made)
    assert float(distance.detach()) > 0
    assert bool((pull.flatten(1).norm(dim=1) > 0).all())


# --------------------------------------------------------------------------- the objective


def test_a_batch_holds_pictures_with_a_z_that_says_the_same(
    objective: StyleGAN2Objective,
) -> None:
    batch = objective.batch(BatchContext(1, 0, 8))
    rows = objective.pictures.pool.rows(1, 0, 8, repeats=2)
    drawn, pictures = objective.pictures.take(rows)
    assert torch.equal(batch.pictures, pictures)
    codes, _ = facts(batch.z.double().numpy())
    assert (codes == drawn.codes).mean() > 0.999  # z was rounded to float32
    again = objective.batch(BatchContext(1, 0, 8))
    assert torch.equal(batch.z, again.z)
    assert 0.6 <= float(batch.psi.min()) <= float(batch.psi.max()) <= 1.05


def test_two_processes_share_a_batch(objective: StyleGAN2Objective) -> None:
    whole = objective.batch(BatchContext(0, 3, 8))
    parts = [objective.batch(BatchContext(0, 3, 8, rank, 2)) for rank in range(2)]
    for name in ("pictures", "z", "psi", "noise"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(objective: StyleGAN2Objective) -> None:
    settings = SMALL.model_copy(
        update={
            "grown": 0,
            "features": 0.5,
            "frozen_precision": "fp32",
            "adversary": 0.1,
            "critic": (8, 8),
        }
    )
    full = StyleGAN2Objective(settings, objective.ctx)
    torch.manual_seed(0)
    model = full.build()
    losses = [
        float(full.loss(model, objective.batch(share), share)[0].detach())
        for share in (
            BatchContext(0, 3, 8),
            BatchContext(0, 3, 8, 0, 2),
            BatchContext(0, 3, 8, 1, 2),
        )
    ]
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-4)


def test_the_middle_and_the_truncation_leave_the_geometry(
    objective: StyleGAN2Objective,
) -> None:
    torch.manual_seed(0)
    model = objective.build()
    assert isinstance(model, PairedGenerator)
    model.requires_grad_(False)
    codes = model.generator.net.codes(model.generator.net.spread(model.centre[None]))
    assert all(float((code - 1).abs().max()) < 1e-4 for code in codes)
    assert model.centre[trait_columns()].mean() == pytest.approx(SCALE, rel=0.03)
    seen: list[torch.Tensor] = []
    model.generator.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    z, still = torch.randn(2, 128), torch.zeros(2, 128)
    batch = PairedBatch(torch.empty(0), z, torch.tensor([1.0, 0.5]), still)
    model(batch, torch.zeros(2, 3, 32, 32), AdversaryPhase())
    w = model.generator.mapping(z)
    torch.testing.assert_close(seen[0][0], w[0])
    assert torch.equal(seen[0][1, trait_columns()], w[1, trait_columns()])
    half = model.centre + 0.5 * (w[1] - model.centre)
    values = trait_columns().start
    torch.testing.assert_close(seen[0][1, :values], half[:values])


def test_it_learns_and_grows(objective: StyleGAN2Objective) -> None:
    torch.manual_seed(0)
    model = objective.build().to(memory_format=torch.channels_last).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-2, weight_decay=0)
    batch, losses = objective.batch(BatchContext(0, 0, 8)), {16: [], 32: []}
    for step in range(60):
        share = BatchContext(0, 0 if step < 40 else 10, 8)
        loss, parts = objective.loss(model, batch, share)
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in trained)  # what is idle has a zero gradient
        optimiser.step()
        losses[16 if step < 40 else 32].append(float(parts["l1"]))
    assert losses[16][-1] < 0.5 * losses[16][0]
    # Growing begins where the smaller size ended, up to the fine detail.
    assert losses[32][0] < losses[16][-1] + 0.05
    assert losses[32][-1] < losses[32][0]
    assert objective.monitor(model.eval())["monitor_l1"] < 0.4


def test_a_trained_generator_is_a_published_one(pools: Path, tmp_path: Path) -> None:
    recipe = {
        "objective": "stylegan2", "samples": 128, "batch": 8, "lr": 1e-2, "warmup": 0, "ema": 16,
        "weight_decay": 0.0, "clip": 10.0, "precision": "fp32", "checkpoint_minutes": 0,
        "monitor_samples": 0, "prefetch": 0, "nice": 0, "device": "cpu",
        "work": str(tmp_path / "work"), "pools": str(pools),
        "settings": {**SMALL.model_dump(), "channels": list(SMALL.channels)},
    }  # fmt: skip
    steps = fit(recipe)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result = end.value
            break
    file = tmp_path / "model.safetensors"
    file.write_bytes(result.files["model.safetensors"])
    generator = load_stylegan2(file)
    assert generator.size == 32
    latent = generator.start(Seeds.of(0, 4))
    images = generator.render(latent)
    assert images.shape == (4, 3, 32, 32)
    assert float(images.std()) > 0.02
    metrics = result.answer["metrics"]
    assert set(metrics) == {"monitor_l1", "monitor_edges", "monitor_sharpness"}
    started = StyleGAN2Objective(SMALL, TrainingContext(pools=pools))
    model = started.build()
    from guided.zoo.packing import load_weights

    tensors = {name: tensor.float() for name, tensor in load_weights(file).items()}
    started.restore(model, tensors)
    again = model.generator(model.generator.mapping(torch.ones(1, 128)))
    published = generator.net(generator.net.spread(generator.net.mapping(torch.ones(1, 128))))
    torch.testing.assert_close(again, published, atol=1e-4, rtol=1e-4)
    codes = generator.in_space(generator.start(Seeds.of(50, 400), truncation=1.0), "s")
    for name, code in codes.items():
        spread = tensors[f"stylespace.std.{name}"]
        assert torch.allclose(tensors[f"stylespace.mean.{name}"], code.mean(0), atol=0.2)
        assert torch.allclose(spread, code.std(0), atol=0.2)


def test_a_critic_joins_later_and_gains_weight_slowly(objective: StyleGAN2Objective) -> None:
    settings = SMALL.model_copy(
        update={"grown": 0, "adversary": 0.1, "critic": (8, 8), "begin": 16, "ramp": 16}
    )
    rival = StyleGAN2Objective(settings, objective.ctx)
    torch.manual_seed(0)
    model = rival.build().to(memory_format=torch.channels_last).train()
    batch, seen = objective.batch(BatchContext(0, 0, 8)), []
    for position in (0, 2, 3, 4, 6, 16):
        loss, parts = rival.loss(model, batch, BatchContext(0, position, 8))
        model.zero_grad()
        loss.backward()
        pulls = {
            name: sum(float(p.grad.abs().sum()) for p in part.parameters() if p.requires_grad)
            for name, part in (("made", model.generator), ("critic", model.critic))
        }
        seen.append((pulls["critic"] > 0, pulls["made"]))
        assert ("critic" in parts) == (position >= 2)
    assert [learns for learns, _ in seen] == [False, True, True, True, True, True]
    alone = seen[0][1]
    assert seen[1][1] == pytest.approx(alone, rel=1e-4)  # it only looks on
    assert seen[5][1] != pytest.approx(alone, rel=1e-3)
    assert "critic" not in dict(objective.build().named_children())
    phase = {"begin": 16, "ramp": 16, "weight": 0.1}
    pushes = [AdversaryPhase.at(8 * step, step, **phase).push for step in (2, 4, 5, 6, 9)]
    assert pushes == pytest.approx([0, 0, 0.05, 0.1, 0.1])
    assert [AdversaryPhase.at(800, place, **phase).penalised for place in (16, 17)] == [True, False]


def test_statistics_are_those_of_the_codes(form: TrainableStyleGAN2) -> None:
    net = build_stylegan2(form.export())
    found = statistics(net, 3000)
    assert set(found) == {f"stylespace.{kind}.s_{i:02d}" for kind in ("mean", "std")
                          for i in range(11)}  # fmt: skip
    with torch.no_grad():
        middle = net.codes(net.spread(net.mapping(torch.randn(3000, 20)).mean(0, keepdim=True)))
    for i, code in enumerate(middle):
        assert torch.allclose(found[f"stylespace.mean.s_{i:02d}"], code[0], atol=0.3)


def test_own_pictures_and_unknown_keys_are_refused() -> None:
    with pytest.raises(CannotDo, match="takes no data"):
        StyleGAN2Objective(SMALL, TrainingContext(data=Path("pictures")))
    with pytest.raises(RecipeError, match=r"\[settings\] of stylegan2: chanels"):
        next(fit({"objective": "stylegan2", "samples": 8, "settings": {"chanels": [8]}}))


def test_the_pictures_are_scaled_by_averaging() -> None:
    pictures = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    pictures[..., :2, :2] = 255
    half = stylegan2.signed_images(pictures, 2)
    assert half[0, 0].tolist() == [[1, -1], [-1, -1]]
    whole = stylegan2.signed_images(pictures, 4)
    assert float(whole.max()) == 1
    assert np.isclose(float(whole.mean()), -0.5)
