from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from guided.errors import CannotDo, CorruptWeights, ShapeError
from guided.nets.identity import IdentityNet, build_identity
from guided.scorers.arcface import ArcFace
from guided.scorers.identity import PortraitIdentity, load_identity
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits import KEYS, draw, sample
from guided.worlds.portraits.attributes import TRAITS
from guided.worlds.portraits.splits import held_out_pairs_of
from guided.worlds.portraits.training.degradation import augment, to_float
from guided.worlds.portraits.training.identity import (
    IdentityObjective,
    IdentitySettings,
    embedding,
    thumbnails,
)
from guided.worlds.portraits.training.person_pairs import (
    FACE,
    SPREAD,
    auc,
    changed,
    people,
    redressed,
    trait_weights,
    traits_of,
    verification,
)
from guided.worlds.portraits.training.pictures import Pictures
from guided.worlds.portraits.training.world_data import Pool, draw_missing
from tests.accelerator.simulated import accelerator
from tests.helpers.tiny_faces import write_face_network

SMALL = IdentitySettings(
    pictures=64, widths=(8, 8, 8), blocks=(1, 0, 1), head=4, hidden=16, clean=0.5
)
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> IdentityObjective:
    folder = tmp_path_factory.mktemp("pool")
    draw_missing(folder, "train", 128, 0, 64, 64, os.getppid())
    made = IdentityObjective(SMALL, TrainingContext(pools=folder))
    made.pictures = Pictures(Pool(folder, "train", 128, 0, 64, 64), torch.device("cpu"))
    return made


def tiny(seed: int = 0) -> IdentityNet:
    torch.manual_seed(seed)
    return IdentityNet((8, 8, 8), (1, 0, 1), 4, 16, 12).eval()


# --------------------------------------------------------------------------- people


def test_traits_have_variance_one() -> None:
    traits = np.stack([traits_of(sample(seed)) for seed in range(1500)])
    assert traits.shape == (1500, len(TRAITS))
    assert np.abs(traits.std(0) - 1).max() < 0.06
    assert np.abs(traits).max() == pytest.approx(1 / SPREAD, abs=1e-3)


def test_a_change_keeps_the_person_and_shows() -> None:
    stream = np.random.default_rng(0)
    for seed in range(12):
        person = sample(seed, "val")
        for key in KEYS:
            other = changed(person, key, stream)
            if other is None:
                continue
            assert other.geometry == person.geometry
            assert other.attributes[key] != person.attributes[key]
            assert not held_out_pairs_of(other.attributes)
            before, after = (np.asarray(draw(p, 64)).astype(int) for p in (person, other))
            assert (before != after).any(), key


def test_a_redressed_person_keeps_the_face_and_nothing_else() -> None:
    person, other = sample(1), sample(2)
    both = redressed(person, other)
    assert both.geometry == person.geometry
    assert both.attributes == other.attributes


def test_auc_counts_pairs() -> None:
    high, low = torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2])
    assert auc(high, low) == 1
    assert auc(low, high) == 0
    assert auc(high, high) == 0.5


def test_verification_of_one_who_knows_and_one_who_does_not() -> None:
    shown = people("val", 0, 6, 32, ("glasses", "hat_color"))
    assert len(shown.edits["hat_color"][0]) < 6  # nobody without a hat has its colour changed
    known = {}
    for pictures in (shown.plain, shown.others, *(p for _, p in shown.edits.values())):
        known.update({picture.numpy().tobytes(): 0 for picture in pictures})
    vectors = F.one_hot(torch.arange(6), 12).float()
    for pictures in (shown.plain, shown.others):
        for row, picture in enumerate(pictures):
            known[picture.numpy().tobytes()] = vectors[row]
    for rows, pictures in shown.edits.values():
        for row, picture in zip(rows.tolist(), pictures, strict=True):
            known[picture.numpy().tobytes()] = vectors[row]
    stranger = torch.ones(12) / 12**0.5

    def oracle(images: torch.Tensor) -> torch.Tensor:
        bytes_of = [(255 * i).round().to(torch.uint8).numpy().tobytes() for i in images]
        return torch.stack([torch.as_tensor(known.get(b, stranger)) for b in bytes_of])

    found = verification(oracle, shown, to_float)
    assert found["auc"] == found["auc_twins"] == 1
    assert found["moved_worst"] == found["moved_glasses"] == pytest.approx(0, abs=1e-6)
    blind = verification(lambda images: torch.ones(len(images), 4) / 2, shown, to_float)
    assert blind["auc"] == 0.5


def test_people_are_verified_on_an_accelerator_too() -> None:
    shown = people("val", 0, 3, 128, ("glasses",))
    known = verification(embedding(tiny()), shown, to_float)
    with accelerator():
        assert verification(embedding(tiny().to("cuda")), shown, to_float) == known


# --------------------------------------------------------------------------- training


def test_a_batch_is_a_function_of_its_share(objective: IdentityObjective) -> None:
    whole, again = objective.batch(BatchContext(0, 1, 8)), objective.batch(BatchContext(0, 1, 8))
    assert torch.equal(whole.images, again.images)
    assert whole.images.shape == (8, 3, 128, 128)
    assert whole.traits.shape == (8, len(TRAITS))
    half = objective.batch(BatchContext(0, 1, 8, 1, 2))
    assert torch.equal(half.traits, whole.traits[4:])


def test_softened_pictures_stay_near(objective: IdentityObjective) -> None:
    pictures = objective.pictures.take(np.arange(8))[1]
    assert torch.allclose(augment(pictures, BatchContext(0, 0, 8), 1.0), to_float(pictures))
    worn = augment(pictures, BatchContext(0, 0, 8), 0.0)
    change = (worn - to_float(pictures)).abs().mean((1, 2, 3))
    assert 0 <= float(worn.min()) <= float(worn.max()) <= 1
    assert bool((change > 1e-3).all())
    assert bool((change < 0.2).all())


def test_a_few_steps_learn_the_batch(objective: IdentityObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch, losses = objective.batch(BatchContext(0, 0, 16)), []
    for _ in range(20):
        loss, parts = objective.loss(model, batch, BatchContext(0, 0, 16))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert set(parts) == {"regression", "contrast", "nearness"}


def test_the_shipped_file_is_the_embedder_alone(
    objective: IdentityObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guided.worlds.portraits.training.identity.JUDGED", 4)
    model = objective.build().eval()
    product = objective.product(model)
    assert product.tensors is not None
    net = build_identity(product.tensors)
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(net(images), model.net(images))
    for name, metric in product.metrics.items():
        assert metric.floor is not None, name
        best = 0 if "moved" in name or "different" in name else 1
        assert metric.ceiling == best
    assert len([name for name in product.metrics if "_trait_" in name]) == 2 * len(TRAITS)
    again = objective.build()
    objective.restore(again, product.tensors)
    assert torch.equal(again.net.embedding.weight, model.net.embedding.weight)


def test_the_recipe_makes_a_small_file() -> None:
    table = tomllib.loads((ROOT / "recipes/train/identity.toml").read_text("utf-8"))
    net = IdentityObjective(IdentitySettings(**table["settings"]), TrainingContext()).build().net
    assert sum(p.numel() for p in net.parameters()) <= 500_000
    assert 2 * sum(t.numel() for t in net.state_dict().values()) <= 2**20


def test_it_takes_no_folder_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match="drawn world"):
        IdentityObjective(SMALL, TrainingContext(data=tmp_path))


# --------------------------------------------------------------------------- the embedder


def test_embeddings_are_unit_vectors_with_gradients() -> None:
    embedder = PortraitIdentity(tiny())
    images = torch.rand(2, 3, 40, 48, requires_grad=True)
    found = embedder.embed_images(images)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), images)
    assert bool(gradient.any())
    with pytest.raises(ShapeError):
        embedder.embed_images(torch.rand(3, 40, 48))


def test_files_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    net: Any = tiny()
    save_file({k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()},
              tmp_path / "own.safetensors")  # fmt: skip
    own = load_identity(tmp_path / "own.safetensors")
    assert isinstance(own, PortraitIdentity)
    assert own.net.embedding.weight.dtype == torch.float32
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.allclose(own.embed_images(images), net(images), atol=2e-2)
    assert isinstance(load_identity(write_face_network(tmp_path / "face.pth")), ArcFace)
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CorruptWeights, match=r"no embedding\.weight and no input_layer"):
        load_identity(tmp_path / "other.safetensors")
    part = {k: v for k, v in net.state_dict().items() if not k.startswith("backbone.stages.0")}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(CorruptWeights, match=r"lacks backbone\.stages\.0"):
        load_identity(tmp_path / "part.safetensors")


def test_a_trait_that_is_read_right_is_explained(objective: IdentityObjective) -> None:
    shown = people("val", 0, 8, 128, ())

    class Oracle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(1))

        def code(self, images: torch.Tensor) -> torch.Tensor:
            return shown.traits * objective.weights * self.nothing

    blind: Any = Oracle()
    assert objective._explained(blind, shown) == pytest.approx(np.zeros(24), abs=0.7)
    torch.nn.init.ones_(blind.nothing)
    assert objective._explained(blind, shown) == pytest.approx(np.ones(24), abs=1e-5)


def test_the_face_counts_in_full() -> None:
    weights = trait_weights(0.3, 0.5)
    assert weights[FACE].tolist() == [1.0] * 15
    assert sorted(set(weights.tolist())) == pytest.approx([0.3, 0.5, 1.0])


def test_thumbnails_are_unit_vectors() -> None:
    found = thumbnails(torch.rand(3, 3, 128, 128))
    assert found.shape == (3, 256)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)
