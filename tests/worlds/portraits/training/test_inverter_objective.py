from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, MissingWeights, ShapeError
from guided.generators.e4e import load_inverter
from guided.generators.stylegan2 import load_stylegan2
from guided.nets.folded_encoder import FoldedStyleEncoder, build_folded_encoder
from guided.nets.stylegan2 import StyleGAN2Shape
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits import sample
from guided.worlds.portraits.attributes import KEYS, TRAITS
from guided.worlds.portraits.training.inverter import InverterObjective, InverterSettings, fact_loss
from guided.worlds.portraits.training.latent_mapping import value_columns
from guided.worlds.portraits.training.latent_world import conditional, geometry_of
from guided.worlds.portraits.training.pictures import Pictures
from guided.worlds.portraits.training.world_data import Pool, draw_missing
from tests.helpers.latent_codes import expected_w
from tests.helpers.tiny_edit import descend, write_models
from tests.helpers.tiny_faces import write_generator

ROOT = Path(__file__).resolve().parents[4]
SMALL = {
    "frozen": "fp32", "pictures": 64, "widths": (8, 8, 8), "blocks": (0, 0, 0), "head": 4,
    "hidden": 16, "common": 64, "each": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    draw_missing(folder, "train", 128, 0, 64, 64, os.getppid())
    return Pool(folder, "train", 128, 0, 64, 64)


def objective_of(models: dict[str, str], pool: Pool, **changes: object) -> InverterObjective:
    made = InverterObjective(InverterSettings(**{**SMALL, **models, **changes}), TrainingContext())
    made.dataset.pictures = Pictures(pool, torch.device("cpu"))
    return made


@pytest.fixture(scope="module")
def objective(models: dict[str, str], pool: Pool) -> InverterObjective:
    return objective_of(models, pool)


# --------------------------------------------------------------------------- batches


def test_a_batch_holds_both_kinds(objective: InverterObjective) -> None:
    batch = objective.batch(BatchContext(0, 3, 8))
    assert batch.images.shape == (8, 3, 128, 128)
    assert batch.codes.shape == (4, 8, 16)
    assert batch.targets.shape == (4, 3, 32, 32)
    assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1
    again = objective.batch(BatchContext(0, 3, 8))
    assert torch.equal(batch.images, again.images)
    assert torch.equal(batch.codes, again.codes)
    assert not torch.equal(batch.codes, objective.batch(BatchContext(0, 4, 8)).codes)


def test_known_codes_draw_their_pictures(models: dict[str, str], pool: Pool) -> None:
    objective = objective_of(models, pool, drawn=0.0, clean=1.0)
    batch = objective.batch(BatchContext(0, 0, 4))
    assert len(batch.targets) == 0
    small = torch.nn.functional.interpolate(
        batch.images, (32, 32), mode="bicubic", antialias=True, align_corners=False
    )
    shown = objective.generator.render({"w": batch.codes})
    assert float((small - shown).abs().mean()) < 0.03


def test_drawn_portraits_alone_will_do(models: dict[str, str], pool: Pool) -> None:
    objective = objective_of(models, pool, drawn=1.0, identity="")
    batch = objective.batch(BatchContext(0, 0, 4))
    assert len(batch.codes) == 0
    loss, parts = objective.loss(objective.build(), batch, BatchContext(0, 0, 4))
    assert parts["latent"].item() == parts["same"].item() == 0
    assert loss.item() > 0


def test_portraits_have_the_codes_of_their_facts(pool: Pool, tmp_path: Path) -> None:
    shape = StyleGAN2Shape(16, 16, 128, 2, (8, 8, 8))
    models = {
        **write_models(tmp_path),
        "generator": str(write_generator(tmp_path / "w.pt", shape=shape)),
    }
    objective = objective_of(models, pool, paired=0.5, drawn=0.25, clean=1.0)
    batch = objective.batch(BatchContext(0, 0, 8))
    assert batch.codes.shape == (6, 6, 16)
    assert len(batch.targets) == 2
    rows = pool.rows(0, 0, 6)
    known = pool.take(rows)
    shown = torch.from_numpy(known.pixels).permute(0, 3, 1, 2) / 255
    assert torch.allclose(batch.images[2:], shown, atol=1e-6)
    people = [sample(int(seed), "train") for seed in known.seeds[:4]]
    z = conditional(known.codes[:4], np.stack([geometry_of(p) for p in people]),
                    np.random.default_rng([BatchContext(0, 0, 8).number("facts 0")]))  # fmt: skip
    wanted = objective.generator.net.mapping(torch.from_numpy(z).float())
    assert torch.allclose(batch.codes[2:], wanted[:, None].expand(-1, 6, -1), atol=1e-5)
    halves = [objective.batch(BatchContext(0, 0, 8, rank, 2)) for rank in (0, 1)]
    assert [len(half.codes) for half in halves] == [3, 3]


def test_a_generator_of_another_world_has_no_facts(objective: InverterObjective, pool: Pool,
                                                   models: dict[str, str]) -> None:  # fmt: skip
    with pytest.raises(CannotDo, match="z of 16 numbers"):
        objective_of(models, pool, paired=0.5).batch(BatchContext(0, 0, 8))
    with pytest.raises(ValueError, match=r"paired and drawn are 1\.2 of a batch"):
        InverterSettings(paired=0.7, drawn=0.5)


def test_two_processes_share_both_kinds(objective: InverterObjective) -> None:
    whole = objective.batch(BatchContext(0, 1, 8))
    parts = [objective.batch(BatchContext(0, 1, 8, rank, 2)) for rank in (0, 1)]
    codes = torch.cat([part.codes for part in parts])
    assert torch.allclose(codes, whole.codes, atol=1e-5)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


# --------------------------------------------------------------------------- the loss


def test_it_begins_at_the_mean_portrait(objective: InverterObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().eval()
    base, offsets = model(torch.rand(3, 3, 128, 128))
    assert not offsets.any()
    assert base.abs().max().item() < 0.3 * objective.spread


def test_rows_get_free_one_by_one(objective: InverterObjective) -> None:
    free = [objective.free(BatchContext(0, position, 16)) for position in (0, 3, 4, 5, 6, 8, 500)]
    assert free == [0, 0, 1, 1, 2, 3, 7]
    base, offsets = torch.ones(2, 16), torch.ones(2, 7, 16)
    code = objective._code(base, offsets, 2)
    assert code[0, :, 0].tolist() == [1, 2, 2, 1, 1, 1, 1, 1]


def test_gradients_reach_offsets_only_when_they_are_free(objective: InverterObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().train()
    for position, wanted in ((0, [False] * 7), (9, [True] + [False] * 6), (99, [True] * 7)):
        share = BatchContext(0, position, 8)
        loss, _ = objective.loss(model, objective.batch(share), share)
        biases = [layer.bias for layer in model.net.offsets]
        gradients = torch.autograd.grad(loss, biases)
        assert [bool(gradient.any()) for gradient in gradients] == wanted


def test_a_few_steps_learn_the_batch(objective: InverterObjective) -> None:
    torch.manual_seed(0)
    model, share = objective.build().train(), BatchContext(0, 99, 8)
    batch = objective.batch(share)
    frozen = {name: t.clone() for name, t in objective.generator.net.state_dict().items()}
    losses = descend(objective, model, batch, share, steps=25, rate=3e-3)
    assert losses[-1] < 0.8 * losses[0]
    for name, tensor in objective.generator.net.state_dict().items():
        assert torch.equal(tensor, frozen[name])
    _, parts = objective.loss(model, batch, share)
    assert set(parts) == {"latent", "facts", "pixels", "features", "same", "offsets"}


def test_a_perfect_code_costs_nothing(objective: InverterObjective) -> None:
    codes = objective.generator.start(Seeds.of(0, 2))["w"]
    pictures = objective.generator.render({"w": codes})
    found = objective._redrawn(codes, pictures)
    assert all(float(value) == pytest.approx(0, abs=1e-5) for value in found.values())


# --------------------------------------------------------------------------- what comes of it


def test_the_file_is_read_by_the_inverter(
    objective: InverterObjective, models: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("guided.worlds.portraits.training.inverter.JUDGED", 2)
    torch.manual_seed(1)
    model = objective.build().eval()
    torch.nn.init.normal_(model.net.offsets[3].bias)
    product = objective.product(model)
    assert product.tensors is not None
    assert product.metrics["new_pixels"].floor is not None
    save_file({k: v.contiguous() for k, v in product.tensors.items()}, tmp_path / "inv.safetensors")
    generator = load_stylegan2(models["generator"])
    inverter = load_inverter(tmp_path / "inv.safetensors", generator.average)
    images = torch.rand(2, 3, 40, 40)
    code = inverter.invert(images)["w"]
    assert code.shape == (2, 8, 16)
    assert generator.render({"w": code}).shape == (2, 3, 32, 32)
    assert not torch.equal(code[:, 0], code[:, 4])
    again = objective.build()
    objective.restore(again, product.tensors)
    assert torch.equal(again.net.base.weight, model.net.base.weight)


def test_an_encoder_is_rebuilt_from_its_tensors() -> None:
    net = FoldedStyleEncoder(12, 24, (8, 12, 16), (1, 0, 2), 5, 20).eval()
    twin = build_folded_encoder(net.state_dict())
    images = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        assert torch.equal(net(images), twin(images))
        assert net(images).shape == (2, 12, 24)
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("base")}
    with pytest.raises(CorruptWeights, match=r"lacks base\.weight"):
        build_folded_encoder(state)
    with pytest.raises(ShapeError, match="three stages, not 2"):
        FoldedStyleEncoder(12, 24, (8, 8), (1, 1))


def test_the_recipe_makes_a_small_file() -> None:
    table = tomllib.loads((ROOT / "recipes/train/inverter.toml").read_text("utf-8"))
    s = InverterSettings(**table["settings"])
    net = FoldedStyleEncoder(12, 128, s.widths, s.blocks, s.head, s.hidden)
    assert sum(p.numel() for p in net.parameters()) <= 1_500_000
    assert 2 * sum(t.numel() for t in net.state_dict().values()) <= 3 * 2**20


def test_what_misses_is_told(tmp_path: Path) -> None:
    lost = InverterObjective(InverterSettings(generator="nowhere.pt"), TrainingContext())
    with pytest.raises(MissingWeights, match=r"no generator file nowhere\.pt"):
        lost.build()


def test_facts_are_read_off_codes() -> None:
    codes = torch.stack([torch.zeros(len(KEYS), dtype=torch.int64), torch.ones(len(KEYS)).long()])
    codes[0, KEYS.index("hat_color")] = 255
    w = expected_w(codes, torch.zeros(2, len(TRAITS)), 128)
    assert float(fact_loss(w, w)) < 0.01
    changed = w.clone()
    beard = value_columns()["beard"]
    changed[1, beard] = w[0, beard]
    assert float(fact_loss(changed, w)) == pytest.approx(8 / 2 / len(KEYS), rel=0.05)
    shown = w.clone()
    shown[0, value_columns()["hat_color"]] = 1.0
    assert float(fact_loss(shown, w)) == pytest.approx(float(fact_loss(w, w)))
    with pytest.raises(ValueError, match="paired is 0"):
        InverterSettings(facts=1.0)
