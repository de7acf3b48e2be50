from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.errors import CorruptWeights, MissingWeights
from guided.generators.text_gan import load_text_gan, read_config
from guided.scorers.clip import ClipScorer
from guided.training.objective import BatchContext, TrainingContext
from guided.training.objectives import text_gan as general
from guided.training.text_gan_monitor import kid
from guided.worlds.portraits import VALUES
from guided.worlds.portraits.training.latent_mapping import SCALE, trait_columns
from guided.worlds.portraits.training.text_gan import TextGanObjective, TextGanSettings
from guided.zoo.packing import load_weights
from tests.helpers.tiny_clip import bundle, scorer  # noqa: F401
from tests.helpers.tiny_text_gan import write_pictures
from tests.helpers.tiny_training import run

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The tiny CLIP cuts long captions and says so."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def settings(scorer_name: str, **changes: Any) -> dict[str, Any]:
    return {
        "size": 32, "scorer": scorer_name, "channels": [12, 10, 8], "critic": [8, 12, 16],
        "style": 12, "hidden": 16, "latent": 8, "finish": 4, "features": 12, "group": 4,
        "looks": 16, "clip_from": 16, "clip_ramp": 16, "clip_rows": 4, "r1_every": 2,
        "image_share": 0.25, **changes,
    }  # fmt: skip


def recipe(work: Path, data: Path, table: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "objective": "text_gan", "name": "g", "samples": 48, "batch": 8, "lr": 1e-3, "warmup": 0,
        "weight_decay": 0.0, "clip": 20.0, "ema": 32, "precision": "fp32", "prefetch": 0,
        "checkpoint_minutes": 0, "report_steps": 1, "monitor_samples": 24, "nice": 0,
        "device": "cpu", "work": str(work), "data": data, "betas": (0.0, 0.99),
        "settings": table, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    data: Path,
    bundle: Path,  # noqa: F811
) -> tuple[Path, list[Any], Any]:
    work = tmp_path_factory.mktemp("work")
    table = settings(f"local-dir:{bundle}", sheets=str(work / "sheets"))
    seen, result = run(recipe(work, data, table))
    return work, seen, result


def test_a_folder_is_learnt_and_watched(trained: tuple[Path, list[Any], Any]) -> None:
    work, seen, result = trained
    assert result.answer["finished"]
    first, last = seen[0].losses, seen[-1].losses
    for name in ("critic", "generator", "sign_real", "sign_fake", "sign_wrong",
                 "gradient_generator", "gradient_critic"):  # fmt: skip
        assert name in first
    assert "clip" not in first
    assert "clip" in last
    assert last["gradient_generator"] > 0
    assert last["gradient_critic"] > 0
    assert {"monitor_match", "monitor_kid", "monitor_diversity", "monitor_score"} <= set(last)
    assert len(list((work / "sheets").glob("*.png"))) == 2
    assert set(result.files) >= {"model.safetensors", "config.json", "card.toml", "samples.png"}
    card = tomllib.loads(result.files["card.toml"].decode())
    assert card["role"] == "text_gan"
    assert "Learnt under a discriminator." in card["notes"]
    assert json.loads(result.files["config.json"])["words"] == ["a", "blue", "green", "red",
                                                                "square"]  # fmt: skip


def test_the_files_make_a_generator(
    trained: tuple[Path, list[Any], Any],
    scorer: ClipScorer,  # noqa: F811
) -> None:
    file = trained[0] / "g" / "model.safetensors"
    gan = load_text_gan(file, scorer)
    assert gan.size == 32
    assert str(read_config(file)["scorer"]).startswith("local-dir:")
    config = file.parent / "config.json"
    kept = config.read_bytes()
    config.write_text(json.dumps({**json.loads(kept), "size": 64}))
    with pytest.raises(CorruptWeights, match="text GAN of 64 px"):
        load_text_gan(file, scorer)
    config.unlink()
    with pytest.raises(CorruptWeights, match=r"no readable config\.json"):
        load_text_gan(file, scorer)
    config.write_bytes(kept)


def test_an_interrupted_training_ends_alike(
    trained: tuple[Path, list[Any], Any],
    data: Path,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    work, _, whole = trained
    table = settings(f"local-dir:{bundle}", sheets=str(work / "sheets"))
    _, left = run(recipe(tmp_path, data, table), stop_after=4)
    assert left is None
    _, result = run(recipe(tmp_path, data, table))
    assert result.files["model.safetensors"] == whole.files["model.safetensors"]
    assert result.answer["metrics"] == whole.answer["metrics"]


def test_weights_of_another_size_do_not_start_a_training(
    trained: tuple[Path, list[Any], Any],
    data: Path,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    start = trained[0] / "g" / "model.safetensors"
    table = settings(f"local-dir:{bundle}")
    _, result = run(recipe(tmp_path, data, table, samples=8, start=start))
    assert "Started from model.safetensors" in result.files["card.toml"].decode()
    absent = tmp_path / "before" / "model.safetensors"
    with pytest.raises(MissingWeights, match=r"to start from.*recipes/train/before\.toml"):
        run(recipe(tmp_path / "c", data, table, samples=8, start=absent))
    wider = settings(f"local-dir:{bundle}", channels=[12, 10, 9])
    with pytest.raises(CorruptWeights, match=r"pictures of 32 px with widths .*another size"):
        run(recipe(tmp_path / "b", data, wider, samples=8, start=start))


def objective_of(bundle: Path, **changes: Any) -> TextGanObjective:  # noqa: F811
    table = settings(f"local-dir:{bundle}", **changes)
    return TextGanObjective(TextGanSettings(**table), TrainingContext())


@pytest.mark.parametrize(
    "asked", [{"paired": 100}, {"kept": 0.1}, {"writing": 1.0}, {"given": True}], ids=str
)
def test_a_folder_is_not_learnt_as_a_regression(asked: dict[str, Any]) -> None:
    ((key, value),) = asked.items()
    with pytest.raises(ValueError, match=f"{key} = {value} needs to know more .* set it to 0"):
        general.TextGanSettings(**settings("clip", **asked))
    assert general.TextGanSettings(**settings("clip", **{key: type(value)(0)}))


def test_some_of_the_regression_stays_beside_the_discriminator(bundle: Path) -> None:  # noqa: F811
    objective = objective_of(bundle, kept=0.5, ramp=16)
    assert [objective.phase(BatchContext(0, place, 8)).g_weight for place in range(3)] == [
        0.5,
        1.0,
        1.0,
    ]
    assert objective.phase(BatchContext(0, 0, 8)).d_step
    players: Any = objective.build()
    assert players.facts is not None
    unread: Any = objective_of(bundle, kept=0.5, facts=0.0).build()
    assert unread.facts is None  # a head without a loss would have no gradient


def test_turns_follow_the_samples(bundle: Path) -> None:  # noqa: F811
    objective = objective_of(bundle, paired=32, ramp=16, r1=2.0, r1_every=4)
    turns = [objective.phase(BatchContext(0, position, 8)) for position in range(8)]
    assert [turn.d_step for turn in turns] == [False] * 4 + [True] * 4
    assert [turn.g_weight for turn in turns[4:]] == [0.5, 1.0, 1.0, 1.0]
    assert [turn.penalty for turn in turns[4:]] == [8.0, 0.0, 0.0, 0.0]
    assert [objective._clip_weight(seen) for seen in (8, 16, 24, 99)] == [0, 0, 0.25, 0.5]


def test_the_augmentation_adapts(data: Path, bundle: Path) -> None:  # noqa: F811
    table = general.TextGanSettings(**settings(f"local-dir:{bundle}"))
    objective = general.TextGanObjective(table, TrainingContext(data=data))
    players: Any = objective.build()
    share = BatchContext(0, 0, 500)
    objective._adapt(torch.ones(8), share)
    assert float(players.chance) == pytest.approx(0.01)
    objective._adapt(torch.ones(8), share)
    objective._adapt(-torch.ones(8), share)
    assert float(players.chance) == pytest.approx(0.01)
    objective.close()


def test_the_regression_learns_a_batch_of_the_world(bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    table = TextGanSettings(**settings(f"local-dir:{bundle}", paired=1000, pictures=16, maps=0.0))
    objective = TextGanObjective(table, TrainingContext(pools=tmp_path))
    objective.scenes.drawn = 32  # type: ignore[union-attr]
    torch.manual_seed(0)
    model: Any = objective.build()
    share = BatchContext(0, 0, 16)
    batch = objective.batch(share)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        loss, parts = objective.loss(model, batch, share)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    objective.close()
    assert "facts" in parts
    assert losses[-1] < 0.7 * losses[0]


def test_words_have_masks_and_a_start_without_them_is_taken(
    trained: tuple[Path, list[Any], Any],
    data: Path,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    start = load_weights(trained[0] / "g" / "model.safetensors")
    table = TextGanSettings(
        **settings(f"local-dir:{bundle}", paired=99, pictures=16, maps=0.0, writing=1.0)
    )
    objective = TextGanObjective(table, TrainingContext(pools=tmp_path))
    objective.scenes.drawn = 32  # type: ignore[union-attr]
    objective.scenes.latent = 8  # type: ignore[union-attr,misc]
    model: Any = objective.build()
    fresh = model.generator.mask_overlay.masks.clone()
    objective.restore(model, {name: tensor.float() for name, tensor in start.items()})
    assert torch.equal(model.generator.mask_overlay.masks, fresh)
    assert fresh.shape == (len(VALUES["sign"]), 32, 32)
    styles = torch.randn(6, 12)
    written = torch.tensor([0, 1, 2, 3, -1, 4])
    optimiser = torch.optim.Adam(model.generator.mask_overlay.parameters(), 0.05)
    for _ in range(60):
        loss = objective._writing(model, styles, written)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    picked = model.generator.mask_overlay.picked(styles).argmax(1)
    assert torch.equal(picked[written >= 0], written[written >= 0])
    objective.close()


def test_a_given_mapping_is_not_trained(bundle: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    table = TextGanSettings(
        **settings(f"local-dir:{bundle}", paired=1000, pictures=16, maps=0.0, given=True)
    )
    objective = TextGanObjective(table, TrainingContext(pools=tmp_path))
    objective.scenes.drawn = 32  # type: ignore[union-attr]
    model: Any = objective.build()
    share = BatchContext(0, 0, 16)
    batch = objective.batch(share)
    objective.loss(model, batch, share)[0].backward()
    given = model.generator.frozen_mapping
    assert all(weight.grad is None for weight in given.parameters())
    values = given(batch.z)[:, : trait_columns().start]
    near = torch.minimum(values.abs(), (values - SCALE).abs()) < 0.1
    assert float(near.float().mean()) > 0.98
    objective.close()


def test_the_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    stream = torch.Generator().manual_seed(0)
    some, others = torch.nn.functional.normalize(torch.randn(2, 400, 16, generator=stream), dim=2)
    assert abs(kid(some, others)) < 0.02
    moved = torch.nn.functional.normalize(others + 0.5, dim=1)
    assert kid(some, moved) > 0.2


RECIPES = {
    name: tomllib.loads((ROOT / f"recipes/train/{name}.toml").read_text("utf-8"))
    for name in ("text_gan", "text_gan_adversarial", "text_gan_paired", "text_gan_folder")
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_recipes_fit_the_objective(name: str) -> None:
    table = RECIPES[name]
    s = TextGanSettings(**table["settings"])
    assert s.size == 8 << (len(s.channels) - 1) == 8 << (len(s.critic) - 1)
    assert table["batch"] % s.group == 0
    if name != "text_gan_paired":
        assert s.paired == 0
        assert s.clip_from >= 0.3 * table["samples"]


def test_the_discriminator_has_a_third_of_the_pictures() -> None:
    before, after, last = (RECIPES[f"text_gan{leg}"] for leg in ("_paired", "_adversarial", ""))
    assert before["settings"]["paired"] == before["samples"]
    assert after["samples"] >= (before["samples"] + after["samples"]) / 3
    assert after["start"] == f"outputs/training/{before['name']}/model.safetensors"
    assert last["start"] == f"outputs/training/{after['name']}/model.safetensors"
    shared = ("size", "scorer", "given", "style")
    assert all(after["settings"][key] == last["settings"][key] for key in shared)
    assert all(before["settings"][key] == after["settings"][key] for key in shared)
