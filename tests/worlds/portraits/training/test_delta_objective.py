from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from guided.errors import CorruptWeights, ShapeError
from guided.nets.delta import DeltaNet, build_delta
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits.attributes import KEYS
from guided.worlds.portraits.training.delta import (
    DeltaObjective,
    DeltaSettings,
    plain_hats,
    world_spans,
)
from guided.worlds.portraits.training.latent_world import LATENT, facts
from tests.helpers.tiny_edit import descend, write_models

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = write_models(tmp_path_factory.mktemp("models"))
    return {role: found[role] for role in ("generator", "scorer")}


def objective_of(models: dict[str, str], **changes: object) -> DeltaObjective:
    small = {"frozen": "fp32", "middle": 24, "hidden": 32, "group": 4, "longest": 6,
             "blur": 0.0}  # fmt: skip
    return DeltaObjective(DeltaSettings(**{**small, **models, **changes}), TrainingContext())


@pytest.fixture(scope="module")
def objective(models: dict[str, str]) -> DeltaObjective:
    return objective_of(models)


def test_a_batch_is_a_function_of_its_share(objective: DeltaObjective) -> None:
    batch, again = objective.batch(BatchContext(0, 2, 16)), objective.batch(BatchContext(0, 2, 16))
    assert torch.equal(batch.changes, again.changes)
    assert batch.codes.shape == batch.changes.shape == (16, 8, 16)
    assert batch.seen.shape == batch.directions.shape == (16, 24)
    assert torch.allclose(batch.directions.norm(dim=1), torch.ones(16), atol=1e-5)
    assert 0 <= float(batch.weights.min()) <= float(batch.weights.max()) == 1
    halves = [objective.batch(BatchContext(0, 2, 16, rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.changes for half in halves]), batch.changes)


def test_features_are_those_of_the_pictures(objective: DeltaObjective) -> None:
    batch = objective.batch(BatchContext(0, 0, 8))
    shown = objective.generator.render({"w": batch.codes})
    assert torch.allclose(batch.seen, objective.scorer.embed_images(shown), atol=1e-5)


def test_a_group_shares_its_direction(models: dict[str, str]) -> None:
    objective = objective_of(models, own=0.0, noise=0.0)
    batch = objective.batch(BatchContext(0, 0, 8))
    for group in (slice(0, 4), slice(4, 8)):
        assert torch.allclose(batch.directions[group], batch.directions[group][:1].expand(4, -1))
    then = objective._features(batch.codes + batch.changes)
    mean = F.normalize((then - batch.seen)[:4].mean(0), dim=0)
    assert torch.allclose(batch.directions[0], mean, atol=1e-4)
    alone = objective_of(models, own=1.0, noise=0.0).batch(BatchContext(0, 0, 8))
    own = F.normalize(then - batch.seen, dim=1)
    assert torch.allclose(alone.directions, own, atol=1e-4)


def test_every_portrait_gets_every_change(objective: DeltaObjective) -> None:
    batch = objective.batch(BatchContext(0, 5, 12))
    codes = batch.codes.view(3, 4, 8, 16)
    assert torch.equal(codes[0], codes[2])
    assert torch.equal(batch.seen[:4], batch.seen[8:])
    assert not torch.allclose(batch.changes[:4], batch.changes[8:])


def test_noise_turns_directions_but_not_far(models: dict[str, str]) -> None:
    clean = objective_of(models, noise=0.0).batch(BatchContext(0, 1, 16)).directions
    noisy = objective_of(models, noise=0.6).batch(BatchContext(0, 1, 16)).directions
    cosines = (clean * noisy).sum(1)
    assert 0.6 < float(cosines.min()) < 0.999


def test_without_mixing_all_rows_move_alike(models: dict[str, str]) -> None:
    plain = objective_of(models, mixing=0.0).batch(BatchContext(0, 0, 8))
    assert torch.allclose(plain.changes, plain.changes[:, :1].expand(-1, 8, -1), atol=1e-5)
    mixed = objective_of(models, mixing=1.0).batch(BatchContext(0, 0, 8))
    assert not torch.allclose(mixed.codes[:, 0], mixed.codes[:, -1])


def test_spans_lie_in_z(objective: DeltaObjective) -> None:
    spans = objective.spans(torch.Generator().manual_seed(0), 200)
    lengths = {span.stop - span.start for several in spans for span in several}
    assert lengths == set(range(1, 7))
    assert min(span.start for several in spans for span in several) == 0
    assert max(span.stop for several in spans for span in several) == 16
    two = sum(len(several) == 2 for several in spans)
    assert {len(several) for several in spans} == {1, 2}
    assert 20 < two < 80


def test_codes_err_as_an_inversion_does(models: dict[str, str]) -> None:
    clean, noisy = (
        objective_of(models, blur=blur).batch(BatchContext(0, 3, 16)) for blur in (0.0, 0.5)
    )
    assert torch.equal(clean.changes, noisy.changes)
    assert torch.equal(clean.seen, noisy.seen)
    off = (noisy.codes - clean.codes).square().mean().sqrt()
    assert float(off / objective_of(models).spread) == pytest.approx(0.5, rel=0.2)


def test_a_new_hat_has_the_first_colour_that_it_can_have() -> None:
    stream = torch.Generator().manual_seed(3)
    z = torch.randn(2000, LATENT, generator=stream)
    after = z.clone()
    hat = world_spans()[KEYS.index("hat")]
    after[:, hat] = torch.randn(2000, hat.stop - hat.start, generator=stream)
    worn = plain_hats(after, z)
    before, asked, got = (facts(each.double().numpy())[0] for each in (z, after, worn))
    hats, colors, shirts = (KEYS.index(key) for key in ("hat", "hat_color", "clothing"))
    new = (before[:, hats] == 0) & (asked[:, hats] > 0)
    assert new.sum() > 300
    first = (got[:, shirts] == 0).astype(int)
    assert (got[new, colors] == first[new]).mean() > 0.99
    assert torch.equal(worn[torch.from_numpy(~new)], after[torch.from_numpy(~new)])


def test_spans_of_the_world_change_one_fact() -> None:
    stream = torch.Generator().manual_seed(1)
    for span in world_spans():
        before = torch.randn(400, LATENT, generator=stream).double().numpy()
        after = before.copy()
        drawn = torch.randn(400, len(after[0, span]), generator=stream).double()
        drawn *= torch.from_numpy(before[:, span]).norm(dim=1, keepdim=True) / drawn.norm(
            dim=1, keepdim=True
        )  # facts are read off z / rms(z): keep its length
        after[:, span] = drawn.numpy()
        (codes, shape), (others, other_shape) = facts(before), facts(after)
        moved = (codes != others).any(0)
        assert moved.any() or (shape != other_shape).any()
        if moved.any():
            assert abs(shape - other_shape).max() < 1e-12
            names = set(torch.as_tensor(moved).nonzero().flatten().tolist())
            # the colour of a hat depends on the hat and on the clothing
            assert len(names - {7}) <= 1


def test_a_few_steps_learn_the_batch(objective: DeltaObjective) -> None:
    torch.manual_seed(0)
    model, share = objective.build().train(), BatchContext(0, 0, 32)
    losses = descend(objective, model, objective.batch(share), share, steps=60, rate=5e-3)
    assert losses[-1] < 0.5 * losses[0]


def test_figures_know_a_perfect_mapper(objective: DeltaObjective) -> None:
    truth = {}
    for position in range(7, 11):
        batch = objective.batch(BatchContext(0, position, 32))
        truth[batch.codes.numpy().tobytes()] = batch.changes

    class Oracle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(1))

        def forward(self, codes: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return truth[codes.numpy().tobytes()]

    found = objective._measured(Oracle(), 7)
    assert found["explained"] == pytest.approx(1, abs=1e-5)
    assert found["cosine"] == pytest.approx(1, abs=1e-5)
    assert found["moved"] > 0.5


def test_the_file_holds_all_that_is_needed(objective: DeltaObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().eval()
    assert float(model.spread) == pytest.approx(objective.spread)
    assert torch.allclose(model.average, objective.generator.middle()["w"][0])
    twin = build_delta(model.state_dict())
    batch = objective.batch(BatchContext(0, 0, 4))
    with torch.no_grad():
        out = model(batch.codes, batch.seen, batch.directions)
        assert torch.equal(out, twin(batch.codes, batch.seen, batch.directions))
    with pytest.raises(ShapeError, match="codes must have the shape"):
        twin(batch.codes[:, 1:], batch.seen, batch.directions)
    with pytest.raises(CorruptWeights, match=r"lacks condition\.0\.weight"):
        build_delta({"average": torch.zeros(2, 2)})
    product = objective.product(model)
    assert product.role == "delta"
    assert set(product.metrics) == {"explained", "cosine", "moved"}


def test_the_recipe_makes_a_small_file() -> None:
    table = tomllib.loads((ROOT / "recipes/train/delta.toml").read_text("utf-8"))
    s = DeltaSettings(**table["settings"])
    net = DeltaNet(12, 128, 256, middle=s.middle, hidden=s.hidden)
    assert 2 * sum(t.numel() for t in net.state_dict().values()) <= 2**20
