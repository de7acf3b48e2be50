from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from guided.errors import CannotDo
from guided.nets.reader import ReaderNet
from guided.training.objective import BatchContext, TrainingContext
from guided.worlds.portraits import KEYS, draw, sample
from guided.worlds.portraits.training.degradation import (
    DEGRADATIONS,
    affine,
    blur,
    degrade,
    jpeg,
    recolor,
    to_float,
)
from guided.worlds.portraits.training.pictures import Pictures
from guided.worlds.portraits.training.reader import ReaderBatch, ReaderObjective, ReaderSettings
from guided.worlds.portraits.training.reading import (
    CLASSES,
    accuracies,
    architecture,
    fit_domain,
    floors,
    guess,
)
from guided.worlds.portraits.training.world_data import Pool, codes_of, draw_missing

SMALL = ReaderSettings(
    pictures=64, widths=(8, 8, 8), blocks=(0, 0, 0), head=4, features=16, recolored=0
)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Eight portraits [8, 3, 128, 128] uint8."""
    arrays = [np.asarray(draw(sample(seed), 128)) for seed in range(8)]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> ReaderObjective:
    folder = tmp_path_factory.mktemp("pool")
    draw_missing(folder, "train", 128, 0, 64, 64, os.getppid())
    made = ReaderObjective(SMALL, TrainingContext(pools=folder))
    made.pictures = Pictures(Pool(folder, "train", 128, 0, 64, 64), torch.device("cpu"))
    return made


# --------------------------------------------------------------------------- degrade


def test_clean_pictures_stay_as_they_are(pictures: torch.Tensor) -> None:
    images = degrade(pictures, BatchContext(0, 0, 8), clean=1.0)
    assert torch.allclose(images, pictures / 255, atol=1e-7)
    assert torch.equal(DEGRADATIONS["clean"](pictures), to_float(pictures))


def test_worn_pictures_are_other_pictures_of_the_same_range(pictures: torch.Tensor) -> None:
    before = pictures.clone()
    images = degrade(pictures, BatchContext(0, 1, 8), clean=0.0)
    assert torch.equal(pictures, before)
    assert images.shape == (8, 3, 128, 128)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    change = (images - to_float(pictures)).abs().mean((1, 2, 3))
    assert bool((change > 1e-3).all())
    assert bool((change < 0.25).all())


def test_wear_is_a_function_of_the_share(pictures: torch.Tensor) -> None:
    whole = degrade(pictures, BatchContext(4, 2, 8), clean=0.3)
    assert torch.equal(whole, degrade(pictures, BatchContext(4, 2, 8), clean=0.3))
    assert not torch.equal(whole, degrade(pictures, BatchContext(4, 3, 8), clean=0.3))


def test_a_shift_moves_and_repeats_the_edge(pictures: torch.Tensor) -> None:
    images = to_float(pictures)
    shift = torch.tensor([[4.0, -3.0]]).expand(8, 2)
    moved = affine(images, shift, torch.ones(8))
    assert torch.allclose(moved[:, :, :-3, 4:], images[:, :, 3:, :-4], atol=1e-5)
    edge = moved[:, :, 10, :3]
    assert torch.allclose(edge, moved[:, :, 10, 3:4].expand_as(edge), atol=1e-5)


def test_growing_keeps_the_centre(pictures: torch.Tensor) -> None:
    images = to_float(pictures)
    grown = affine(images, torch.zeros(8, 2), torch.full((8,), 2.0))
    centre = torch.nn.functional.interpolate(images[:, :, 32:96, 32:96], scale_factor=2.0,
                                             mode="bilinear")  # fmt: skip
    assert torch.allclose(grown[:, :, 2:-2, 2:-2], centre[:, :, 2:-2, 2:-2], atol=1e-5)


def test_a_blur_is_a_normalised_gaussian() -> None:
    point = torch.zeros(1, 3, 41, 41)
    point[:, :, 20, 20] = 1.0
    spread = blur(point, 2.0)[0, 0]
    assert float(spread.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(spread[20, 22] / spread[20, 20]) == pytest.approx(np.exp(-0.5), rel=1e-4)
    flat = torch.full((2, 3, 16, 16), 0.4)
    assert torch.allclose(blur(flat, 1.3), flat, atol=1e-6)


def test_jpeg_is_close_and_closer_at_a_better_quality(pictures: torch.Tensor) -> None:
    errors = [
        float((jpeg(pictures, quality).float() - pictures).abs().mean()) for quality in (20, 90)
    ]
    assert 0 < errors[1] < errors[0] < 12


# --------------------------------------------------------------------------- the objective


def test_a_batch_holds_what_the_portraits_show(objective: ReaderObjective) -> None:
    batch = objective.batch(BatchContext(0, 5, 16))
    rows = objective.pictures.pool.rows(0, 5, 16, slice(None), SMALL.repeats)
    for row, seed in enumerate(rows):
        portrait = sample(int(seed), "train")
        assert batch.codes[row].tolist() == codes_of(portrait)
        assert batch.visible[row].tolist() == [portrait.visible()[key] for key in KEYS]
    assert batch.images.shape == (16, 3, 128, 128)


class _Fixed(torch.nn.Module):
    """Answers with given logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


def _batch(codes: torch.Tensor, visible: torch.Tensor) -> ReaderBatch:
    return ReaderBatch(torch.zeros(len(codes), 3, 1, 1), codes, visible)


def test_knowing_nothing_costs_the_entropy_of_a_uniform_guess() -> None:
    objective = ReaderObjective(ReaderSettings(smoothing=0.0), TrainingContext())
    codes = torch.zeros(4, len(KEYS), dtype=torch.long)
    model = _Fixed(torch.zeros(4, sum(CLASSES)))
    loss, _ = objective.loss(
        model, _batch(codes, torch.ones_like(codes).bool()), BatchContext(0, 0, 4)
    )
    assert loss.item() == pytest.approx(np.mean(np.log(CLASSES)), rel=1e-5)


def test_what_cannot_be_seen_is_not_learnt() -> None:
    objective = ReaderObjective(ReaderSettings(), TrainingContext())
    codes = torch.full((4, len(KEYS)), 255)
    visible = torch.zeros(4, len(KEYS), dtype=torch.bool)
    visible[:, 0], codes[:, 0] = True, 3
    logits = torch.randn(4, sum(CLASSES), generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    loss, parts = objective.loss(_Fixed(logits), _batch(codes, visible), BatchContext(0, 0, 4))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool((gradient[:, : CLASSES[0]] != 0).any())
    assert not bool((gradient[:, CLASSES[0] :] != 0).any())
    assert float(parts["sign"]) == 0


def test_a_few_steps_learn_the_batch(objective: ReaderObjective) -> None:
    torch.manual_seed(0)
    model = objective.build().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch, losses = objective.batch(BatchContext(0, 0, 16)), []
    for _ in range(8):
        loss, _ = objective.loss(model, batch, BatchContext(0, 0, 16))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_reader_takes_no_folder_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(CannotDo, match="drawn world"):
        ReaderObjective(SMALL, TrainingContext(data=tmp_path))


# --------------------------------------------------------------------------- the net and measures


def test_the_shipped_size_stays_small() -> None:
    net = ReaderObjective(ReaderSettings(), TrainingContext()).build()
    weights = sum(t.numel() for t in net.state_dict().values())
    assert sum(p.numel() for p in net.parameters()) <= 1_050_000
    assert 2 * weights <= 2.5 * 2**20


def test_an_architecture_can_be_built_again() -> None:
    net = ReaderNet(CLASSES, (8, 12, 16), (1, 0, 2), 5, 24)
    twin = ReaderNet(CLASSES, **architecture(net))
    twin.load_state_dict(net.state_dict())
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(net.eval()(images), twin.eval()(images))
        assert [part.shape[1] for part in net.split(net(images))] == list(CLASSES)
    assert net.features(images).shape == (2, 24)


def test_the_net_sees_where_things_are() -> None:
    torch.manual_seed(3)
    net = ReaderNet(CLASSES, (8, 8, 8), (0, 0, 0), 4, 16).eval()
    images = torch.zeros(2, 3, 128, 128)
    images[0, :, 16:32, 16:32] = images[1, :, 96:112, 96:112] = 1.0
    with torch.no_grad():
        first, second = net.features(images)
    assert not torch.allclose(first, second, atol=1e-4)


def test_accuracies_count_what_is_visible() -> None:
    codes = np.zeros((4, len(KEYS)), int)
    guesses = codes.copy()
    guesses[:2, 0] = 1
    visible = np.ones_like(codes, bool)
    visible[0, 0] = False
    visible[:, 1] = False
    scores = accuracies(guesses, codes, visible)
    assert scores[KEYS[0]] == pytest.approx(2 / 3)
    assert KEYS[1] not in scores
    assert all(scores[key] == 1 for key in KEYS[2:])


def test_floors_answer_the_most_frequent_visible_value() -> None:
    codes = np.zeros((5, len(KEYS)), int)
    codes[:, 0] = [3, 3, 1, 1, 1]
    visible = np.ones_like(codes, bool)
    visible[2:4, 0] = False
    visible[:, 1] = False
    lows = floors(codes, visible)
    assert lows[KEYS[0]] == pytest.approx(2 / 3)
    assert KEYS[1] not in lows
    assert lows[KEYS[2]] == 1


def test_guesses_are_the_largest_logits() -> None:
    logits = torch.full((1, sum(CLASSES)), -1.0)
    start = np.cumsum([0, *CLASSES[:-1]])
    wanted = [count - 1 for count in CLASSES]
    logits[0, start + np.array(wanted)] = 1.0
    assert guess(_Fixed(logits), torch.zeros(1, 3, 128, 128)).tolist() == [wanted]


def test_the_domain_holds_its_own_and_not_noise(pictures: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = ReaderNet(CLASSES, (8, 8, 8), (0, 0, 0), 4, 16).eval()
    images = to_float(pictures)
    with torch.no_grad():
        fit_domain(net, [images.roll(k, 3) for k in range(0, 128, 8)])
        inside = net.distance(net.maps(images)) / net.domain_limit
        noise = torch.rand(8, 3, 128, 128, generator=torch.Generator().manual_seed(2))
        outside = net.distance(net.maps(noise)) / net.domain_limit
    assert bool((inside <= 1).all())
    assert bool((outside > 1).all())


def test_recolored_pictures_keep_their_shapes_and_hide_their_colors(
    objective: ReaderObjective, pictures: torch.Tensor
) -> None:
    images = to_float(pictures)
    changed, rows = recolor(images, BatchContext(0, 3, 8), 0.5)
    assert 0 < int(rows.sum()) < 8
    assert torch.equal(changed[~rows], images[~rows])
    assert (changed[rows] != images[rows]).flatten(1).any(1).all()
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    for before, after in zip(images[rows], changed[rows], strict=True):
        grey = torch.stack([before.mean(0).flatten(), after.mean(0).flatten()])
        assert float(torch.corrcoef(grey)[0, 1]) > 0.5
    again, same = recolor(images, BatchContext(0, 3, 8), 0.5)
    assert torch.equal(again, changed)
    assert torch.equal(same, rows)
    everything, all_rows = recolor(images, BatchContext(0, 3, 8), 0.0)
    assert not all_rows.any()
    assert torch.equal(everything, images)
