from __future__ import annotations

import csv
import io
import logging
import os
import random
import re
import shutil
import signal
import time
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load

from guided.core import device
from guided.errors import CannotDo, CorruptWeights, MissingWeights, RecipeError, UsageError
from guided.training import fit as loop
from guided.training.registry import ALIASES, objectives
from guided.zoo.cards import card_from
from tests.helpers import tiny_training as tiny


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted training: its Steps and Result."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    done = tiny.run(tiny.recipe(tmp_path_factory.mktemp("whole")))
    torch.set_num_threads(before)
    return done


def test_it_learns_and_says_how_it_goes(whole: Any) -> None:
    steps, result = whole
    assert steps[-1].losses["loss"] < 0.7 * steps[0].losses["loss"]
    assert [s.index for s in steps] == sorted({s.index for s in steps})
    assert steps[-1].index == steps[-1].total == 40
    wanted = {"loss", "worst", "gradient", "lr", "per_second", "minutes_left"}
    assert all(wanted <= set(s.losses) for s in steps)
    watched = [s.index for s in steps if "monitor_error" in s.losses]
    assert watched == [10, 20, 30, 40]
    assert result.answer["finished"]
    assert result.answer["samples"] == 320


def test_its_files_are_whole_and_say_what_they_are(whole: Any) -> None:
    _, result = whole
    files = result.files
    tensors = load(files["model.safetensors"])
    assert all(t.dtype == torch.float16 for t in tensors.values() if t.is_floating_point())
    card = card_from(tomllib.loads(files["card.toml"].decode()), "card")
    assert (card.name, card.role, card.samples_seen, card.grade) == ("tiny", "toy", 320, "cpu")
    assert card.size == len(files["model.safetensors"])
    assert card.core_hours is not None
    assert card.metrics["error"].value == pytest.approx(result.scores["error"], abs=1e-5)
    assert set(card.companions) == {"note.txt", "config.json"}
    rows = list(csv.DictReader(io.StringIO(files["losses.csv"].decode())))
    assert [float(row["samples"]) for row in rows][-1] == 320
    with Image.open(io.BytesIO(files["curve.png"])) as curve:
        assert curve.size == (640, 320)
    folder = Path(result.answer["folder"])
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_the_average_is_shipped_in_the_precision_it_was_measured(
    whole: Any, tmp_path: Path
) -> None:
    _, result = whole
    ctx = loop.TrainingContext()
    objective = tiny.TinyObjective(tiny.TinySettings(), ctx)
    net = objective.build().eval()
    net.load_state_dict({k: t.float() if t.is_floating_point() else t
                         for k, t in load(result.files["model.safetensors"]).items()})  # fmt: skip
    assert objective.monitor(net)["monitor_error"] == pytest.approx(
        result.scores["error"], rel=1e-6
    )


@pytest.mark.parametrize("after", [1, 3, 7])
def test_a_resumed_training_is_bit_identical(whole: Any, tmp_path: Path, after: int) -> None:
    tiny.run(tiny.recipe(tmp_path), stop_after=after)
    steps, result = tiny.run(tiny.recipe(tmp_path, prefetch=2))
    assert steps[0].index > 4 * after - 4
    assert result.files["model.safetensors"] == whole[1].files["model.safetensors"]


def test_a_finished_training_gives_its_files_again(tmp_path: Path) -> None:
    _, first = tiny.run(tiny.recipe(tmp_path))
    steps, second = tiny.run(tiny.recipe(tmp_path))
    assert steps == []
    assert second.files["model.safetensors"] == first.files["model.safetensors"]


def test_other_settings_do_not_continue_a_training(tmp_path: Path) -> None:
    tiny.run(tiny.recipe(tmp_path), stop_after=1)
    with pytest.raises(CannotDo, match=r"other settings.*another\s+name"):
        tiny.run(tiny.recipe(tmp_path, lr=0.5))
    tiny.run(tiny.recipe(tmp_path, report_steps=40))  # does not change what is trained


def test_a_training_can_be_lengthened_on_its_way_and_after_its_end(tmp_path: Path) -> None:
    tiny.run(tiny.recipe(tmp_path, samples=160), stop_after=3)
    steps, ended = tiny.run(tiny.recipe(tmp_path, samples=240))
    assert steps[0].index > 8  # it goes on, it does not begin again
    assert steps[-1].index == steps[-1].total == 30
    steps, result = tiny.run(tiny.recipe(tmp_path, samples=320))
    assert [steps[0].index, steps[-1].index] == [34, 40]
    assert result.answer["samples"] == 320
    notes = tomllib.loads(result.files["card.toml"].decode())["notes"]
    assert re.search(r"was 160 samples, after \d+ samples 240 samples\.", notes)
    assert "was 240 samples, after 240 samples 320 samples." in notes
    assert ended.files["model.safetensors"] != result.files["model.safetensors"]


def test_two_trainings_cannot_share_a_folder(tmp_path: Path) -> None:
    first = loop.fit(tiny.recipe(tmp_path))
    next(first)
    with pytest.raises(CannotDo, match=r"Another process is training 'tiny'.*another name"):
        tiny.run(tiny.recipe(tmp_path))
    first.close()
    tiny.run(tiny.recipe(tmp_path), stop_after=1)


def test_another_seed_gives_other_weights(whole: Any, tmp_path: Path) -> None:
    _, other = tiny.run(tiny.recipe(tmp_path, seed=1))
    assert other.files["model.safetensors"] != whole[1].files["model.safetensors"]


def _child(table: dict[str, Any]) -> int:
    """A forked process that trains; returns its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child uses none
        child = os.fork()
    if child == 0:
        status = 1
        try:
            tiny.run(table)
            status = 0
        finally:
            os._exit(status)
    return child


def _kill_until_done(folder: Path, kills: int, seed: int) -> int:
    """Train in processes that are killed at random moments; returns how many were."""
    stream, killed = random.Random(seed), 0
    while True:
        child = _child(tiny.recipe(folder))
        if killed < kills:
            time.sleep(stream.uniform(0.02, 0.25))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == -signal.SIGKILL:
            killed += 1
            continue
        assert status == 0
        return killed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_three_kills_at_random_moments_change_nothing(whole: Any, tmp_path: Path) -> None:
    assert _kill_until_done(tmp_path, kills=3, seed=1) >= 1
    weights = (tmp_path / "tiny" / "model.safetensors").read_bytes()
    assert weights == whole[1].files["model.safetensors"]
    assert not list((tmp_path / "tiny").glob(".*.part"))


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_trainings_killed_at_random_change_nothing(whole: Any, tmp_path: Path) -> None:
    killed = 0
    for seed in range(20):
        killed += _kill_until_done(tmp_path / str(seed), kills=3, seed=seed)
        weights = (tmp_path / str(seed) / "tiny" / "model.safetensors").read_bytes()
        assert weights == whole[1].files["model.safetensors"]
    assert killed >= 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_cleanly(whole: Any, tmp_path: Path, number: int) -> None:
    steps = loop.fit(tiny.recipe(tmp_path, checkpoint_minutes=60))
    handler = signal.getsignal(number)
    first = next(steps)
    os.kill(os.getpid(), number)
    result = tiny.rest(steps)[1]
    assert not result.answer["finished"]
    assert first.index <= result.answer["steps"] < 40
    assert result.files == {}
    assert signal.getsignal(number) == handler
    _, done = tiny.run(tiny.recipe(tmp_path))
    assert done.files["model.safetensors"] == whole[1].files["model.safetensors"]


def test_a_batch_that_is_not_finite_is_rolled_back(tmp_path: Path, caplog: Any) -> None:
    table = tiny.recipe(tmp_path, settings={"poison": (7, 23)}, monitor_samples=0)
    with caplog.at_level(logging.WARNING):
        steps, result = tiny.run(table)
    assert sum("Not finite: back to step 0" in r.message for r in caplog.records) == 2
    assert result.answer["steps"] == 40
    tensors = load(result.files["model.safetensors"])
    assert all(torch.isfinite(t).all() for t in tensors.values())
    assert max(s.losses["lr"] for s in steps[-3:]) < 0.25 * 1e-2
    card = tomllib.loads(result.files["card.toml"].decode())
    assert "Rolled back 2 times" in card["notes"]


def test_endless_roll_backs_end_with_advice(tmp_path: Path) -> None:
    table = tiny.recipe(tmp_path, settings={"poison": tuple(range(3, 40))}, rollbacks=4)
    with pytest.raises(CannotDo, match=r"not finite.*5th time.*smaller lr"):
        tiny.run(table)


def test_a_poisoned_training_resumes_bit_identically_too(tmp_path: Path) -> None:
    table = {"settings": {"poison": (2,)}, "monitor_samples": 0}
    _, one = tiny.run(tiny.recipe(tmp_path / "a", **table))
    tiny.run(tiny.recipe(tmp_path / "b", **table), stop_after=3)
    _, two = tiny.run(tiny.recipe(tmp_path / "b", **table))
    assert one.files["model.safetensors"] == two.files["model.safetensors"]


def test_the_objectives_of_all_recipes_are_listed() -> None:
    recipes = (Path(__file__).parents[2] / "recipes/train").glob("*.toml")
    named = {tomllib.loads(file.read_text())["objective"] for file in recipes}
    named = {ALIASES.get(name, name) for name in named}
    assert len(named) > 8
    assert named <= set(objectives())


def test_shipped_weights_can_be_started_from(whole: Any, tmp_path: Path) -> None:
    weights = tmp_path / "given.safetensors"
    weights.write_bytes(whole[1].files["model.safetensors"])
    table = tiny.recipe(tmp_path, start=str(weights), samples=80, report_steps=1, lr=1e-3)
    steps, result = tiny.run(table)
    assert steps[0].losses["loss"] < 0.7 * whole[0][0].losses["loss"]
    notes = tomllib.loads(result.files["card.toml"].decode())["notes"]
    assert "Started from given.safetensors sha256 " in notes


def test_a_card_counts_what_the_weights_had_cost_before(tmp_path: Path) -> None:
    seen, start = [], ""
    for leg in range(3):
        folder = tmp_path / str(leg)
        folder.mkdir()
        given = {"start": start} if start else {}
        table = tiny.recipe(folder, samples=80, monitor_samples=0, **given)
        _, result = tiny.run(table)
        for name, content in result.files.items():
            (folder / name).write_bytes(content)
        start = str(folder / "model.safetensors")
        seen.append(tomllib.loads(result.files["card.toml"].decode()))
    own = [card["samples_seen"] for card in seen]
    before = [card.get("samples_before", 0) for card in seen]
    assert before == [0, own[0], own[0] + own[1]]
    inner = tmp_path / "2" / "inner" / "model.safetensors"  # a folder's card is above its weights
    inner.parent.mkdir()
    inner.write_bytes(Path(start).read_bytes())
    _, deep = tiny.run(tiny.recipe(inner.parent, start=str(inner), samples=80, monitor_samples=0))
    assert tomllib.loads(deep.files["card.toml"].decode())["samples_before"] == sum(own)
    Path(start).write_bytes((tmp_path / "0/model.safetensors").read_bytes())  # not this card's
    _, other = tiny.run(tiny.recipe(tmp_path, start=start, samples=80, monitor_samples=0))
    assert "samples_before" not in tomllib.loads(other.files["card.toml"].decode())


def test_weights_that_do_not_fit_are_refused(whole: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="no weight"):
        tiny.run(tiny.recipe(tmp_path, start=str(tmp_path / "nothing.safetensors")))
    weights = tmp_path / "given.safetensors"
    weights.write_bytes(whole[1].files["model.safetensors"])
    with pytest.raises(CorruptWeights, match="do not fit this recipe's model"):
        tiny.run(tiny.recipe(tmp_path, start=str(weights), settings={"plain": True}))


def test_a_time_limit_ends_with_the_learning_rate_down(tmp_path: Path) -> None:
    table = tiny.recipe(tmp_path, samples=10**9, minutes=1.5 / 60, report_steps=1, ema=10**4)
    began = time.monotonic()
    steps, result = tiny.run(table | {"checkpoint_minutes": 1})
    assert 1.4 < time.monotonic() - began < 6
    assert result.answer["finished"]
    assert steps[-1].losses["lr"] < 0.05 * max(s.losses["lr"] for s in steps)


@pytest.mark.parametrize("able", [True, False])
def test_bf16_and_prefetching_train_as_well(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    able: bool,
) -> None:
    monkeypatch.setattr(device, "multiplies_bf16", lambda place: able)
    steps, result = tiny.run(tiny.recipe(tmp_path, precision="bf16", prefetch=2))
    assert ("no bf16 products: training in fp32" in caplog.text) != able
    assert steps[-1].losses["loss"] < 0.7 * steps[0].losses["loss"]
    assert result.scores["error"] < 3


def test_workers_are_let_go_however_it_ends(tmp_path: Path) -> None:
    before = tiny.TinyObjective.closed
    tiny.run(tiny.recipe(tmp_path), stop_after=1)
    tiny.run(tiny.recipe(tmp_path))
    with pytest.raises(CannotDo):
        tiny.run(tiny.recipe(tmp_path / "x", settings={"poison": (0,)}, rollbacks=0))
    assert tiny.TinyObjective.closed == before + 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "tyni"}, "no objective 'tyni'.*Allowed: .*reader"),
        ({"objective": "reder"}, "Did you mean 'reader'"),
        ({"objective": ""}, "names no objective"),
        ({"sampels": 3}, "Did you mean 'samples'"),
        ({"samples": None}, "Set samples, minutes or hours"),
        ({"samples": -1}, "samples.*greater than 0"),
        ({"settings": {"nois": 1}}, r"\[settings\] of tiny: nois.*Did you mean 'noise'"),
        ({"batch": 9, "processes": 2}, "batch 9 does not divide among 2"),
        ({"name": "../x"}, "name must be letters"),
    ],
)
def test_wrong_recipes_say_what_to_do(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        tiny.run({**tiny.recipe(tmp_path), **changes})


def test_a_training_is_its_data_and_the_weights_it_starts_from(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text("one")
    table = tiny.recipe(tmp_path / "work", data=str(data), samples=80)
    _, first = tiny.run(table)
    shutil.copytree(data, tmp_path / "moved")
    _, again = tiny.run({**table, "data": str(tmp_path / "moved")})
    assert again.files["model.safetensors"] == first.files["model.safetensors"]
    (tmp_path / "moved" / "a.txt").write_text("two")
    for changed in (str(tmp_path / "moved"), None):
        with pytest.raises(CannotDo, match="began with other data"):
            tiny.run({**table, "data": changed})
    with pytest.raises(UsageError, match="There is no folder"):
        tiny.run({**table, "data": str(tmp_path / "gone")})

    start = tmp_path / "model.safetensors"
    start.write_bytes(first.files["model.safetensors"])
    table = tiny.recipe(tmp_path / "two", start=str(start), samples=80)
    tiny.run(table)
    start.write_bytes(first.files["model.safetensors"][:-4] + bytes(4))
    with pytest.raises(CannotDo, match="began with another start"):
        tiny.run(table)
    start.unlink()
    tiny.run(table)  # it has begun and needs them no more


def test_gradients_are_clipped_before_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of the loss finds the gradients that the step before was taken with."""
    lengths: list[float] = []
    original = tiny.TinyObjective.loss

    def watched(self: Any, model: torch.nn.Module, batch: Any, share: Any) -> Any:
        squares = [float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None]
        lengths.append(sum(squares) ** 0.5)
        return original(self, model, batch, share)

    monkeypatch.setattr(tiny.TinyObjective, "loss", watched)
    table = tiny.recipe(tmp_path, samples=80, clip=0.01, report_steps=1, monitor_samples=0)
    steps, _ = tiny.run(table)
    assert all(step.losses["gradient"] > 0.1 for step in steps)  # as it was before
    assert lengths[1:] == pytest.approx([0.01] * 9, rel=1e-3)


def test_each_roll_back_halves_the_learning_rate(tmp_path: Path) -> None:
    table = {"report_steps": 1, "monitor_samples": 0}
    plain, _ = tiny.run(tiny.recipe(tmp_path / "a", **table))
    poison = {"settings": {"poison": (3, 8)}}  # after 3 steps, and after 4 more from the start
    steps, _ = tiny.run(tiny.recipe(tmp_path / "b", **table, **poison))
    rates = [step.losses["lr"] for step in plain]
    wanted = [*rates[:3], *(0.5 * rate for rate in rates[:4]), *(0.25 * rate for rate in rates)]
    assert [step.losses["lr"] for step in steps] == pytest.approx(wanted)
