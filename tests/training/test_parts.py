from __future__ import annotations

import hashlib
import io
import logging
import math
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from guided.errors import CannotDo, CorruptWeights, OutputError, RecipeError
from guided.training import checkpoint
from guided.training.best_weights import BestWeights
from guided.training.ema import EMA
from guided.training.loss_curve import picture, table
from guided.training.objective import BatchContext
from guided.training.prefetch import Prefetcher, to_device
from guided.training.report import Report, crosses, finite
from guided.training.schedule import Budget, learning_rate
from guided.training.settings import TrainingSettings
from tests.helpers import tiny_training as tiny

# --------------------------------------------------------------------------- schedule


def test_the_budget_is_used_by_what_comes_first() -> None:
    both = Budget(samples=100, seconds=10.0)
    assert both.progress(50, 1.0) == 0.5
    assert both.progress(10, 9.0) == 0.9
    assert both.progress(100, 0.0) == both.progress(0, 10.0) == both.progress(10**6, 0) == 1
    assert both.seconds_left(50, 8.0) == pytest.approx(2.0)
    assert Budget(samples=7).seconds_left(0, 0.0) == math.inf


def test_a_budget_needs_an_end() -> None:
    with pytest.raises(RecipeError, match="Set samples, minutes or hours"):
        Budget()


def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    assert learning_rate(0, 50, warmup=100) == 0.5
    assert learning_rate(0.5, 1000, warmup=100) == pytest.approx(0.5)
    assert learning_rate(1.0, 1000, warmup=100, final=0.1) == pytest.approx(0.1)
    third = learning_rate(1 / 3, 1000, warmup=0, final=0.2)
    assert third == pytest.approx(0.2 + 0.8 * 0.75)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**6))
def test_after_the_warm_up_the_rate_never_rises(a: float, b: float, warmup: int) -> None:
    early, late = sorted((a, b))
    rates = [learning_rate(p, warmup, warmup) for p in (early, late)]
    assert 0 <= rates[1] <= rates[0] <= 1


# --------------------------------------------------------------------------- average


def test_the_average_has_the_half_life_it_promises() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    average = EMA(net, half_life=1000)
    average.updates = 10**6  # long past the short memory of the beginning
    nn.init.constant_(net.weight, 0.0)
    for _ in range(100):
        average.update(net, samples=10)
    assert float(average.module.weight) == pytest.approx(0.5, rel=1e-4)


def test_the_average_forgets_the_beginning_soon() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 100.0)
    average = EMA(net, half_life=10**9)
    nn.init.constant_(net.weight, 1.0)
    average.update(net, samples=1)
    assert float(average.module.weight) == pytest.approx(1.0 + 99.0 * 2 / 11)
    for _ in range(199):
        average.update(net, samples=1)
    expected = 1.0 + 99.0 * math.prod((1 + n) / (10 + n) for n in range(1, 201))
    assert float(average.module.weight) == pytest.approx(expected, rel=1e-4)
    assert float(average.module.weight) < 1.01


def test_the_average_follows_buffers_and_is_frozen() -> None:
    net = nn.BatchNorm1d(2)
    average = EMA(net, half_life=1)
    net.train()(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) + 3)
    average.updates = 10**6
    for _ in range(60):
        average.update(net, samples=1)
    assert torch.allclose(average.module.running_mean, net.running_mean, atol=1e-5)
    assert average.module.num_batches_tracked == 1
    assert not average.module.training
    assert not any(p.requires_grad for p in average.module.parameters())


# --------------------------------------------------------------------------- checkpoints


def _state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((64,), float(step)), "rows": [{"loss": 0.5}]}


def test_two_generations_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        checkpoint.write(tmp_path, step, _state(step))
    assert [f.name for f in checkpoint.generations(tmp_path)] == [
        "step-000000004.ckpt", "step-000000003.ckpt",
    ]  # fmt: skip
    newest = checkpoint.read_newest(tmp_path)
    assert newest is not None
    assert newest["rows"] == [{"loss": 0.5}]
    assert torch.equal(newest["weights"], torch.full((64,), 4.0))
    assert checkpoint.read_newest(tmp_path / "elsewhere") is None
    checkpoint.clear(tmp_path)
    assert checkpoint.read_newest(tmp_path) is None


DAMAGE = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "a flipped bit in the middle": lambda data: _flip(data, len(data) // 2),
    "a flipped bit at the end": lambda data: _flip(data, len(data) - 1),
    "a flipped bit in the hash": lambda data: _flip(data, 25),
    "another beginning": lambda data: b"x" + data[1:],
    "zeros": lambda data: bytes(len(data)),
}


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, kind: str, caplog: Any
) -> None:
    for step in (1, 2):
        checkpoint.write(tmp_path, step, _state(step))
    newest = checkpoint.generations(tmp_path)[0]
    newest.write_bytes(DAMAGE[kind](newest.read_bytes()))
    with caplog.at_level(logging.WARNING):
        state = checkpoint.read_newest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert f"{newest} is damaged. Going back to the checkpoint before it" in caplog.text


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, _state(1)).write_bytes(b"no")
    with pytest.raises(CorruptWeights, match=r"All 1 checkpoints.*Delete the folder"):
        checkpoint.read_newest(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "canary",))

    file = checkpoint.write(tmp_path, 1, {"evil": Evil()})
    with pytest.raises(CorruptWeights, match="damaged"):
        checkpoint.read(file)
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_claims_no_more_than_it_stores(tmp_path: Path) -> None:
    """Its sum is its own, so whoever changes the tensors can write a fitting one."""
    payload = io.BytesIO()
    torch.save({"a": torch.zeros(1).expand(1 << 34)}, payload)
    content = payload.getvalue()
    head = b"guided checkpoint 1\n" + hashlib.sha256(content).digest()
    (tmp_path / "step-000000001.ckpt").write_bytes(head + content)
    with pytest.raises(CorruptWeights, match="damaged"):
        checkpoint.read(tmp_path / "step-000000001.ckpt")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, _state(1))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OutputError, match="Cannot write"):
            checkpoint.write(tmp_path, 2, _state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    state = checkpoint.read_newest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert not list(tmp_path.glob(".*.part"))


# --------------------------------------------------------------------------- batches


def test_batches_come_in_order_whatever_the_depth() -> None:
    made: list[int] = []

    def make(position: int) -> int:
        made.append(position)
        return position * position

    for depth in (0, 1, 3):
        ahead = Prefetcher(make, depth)
        assert [ahead.get(p) for p in (0, 1, 2, 7, 8)] == [0, 1, 4, 49, 64]
        ahead.close()
    assert set(made) >= {0, 1, 2, 7, 8}


def test_as_many_batches_are_made_ahead_as_were_asked_for() -> None:
    made: list[int] = []
    ahead = Prefetcher(made.append, 2)
    ahead.get(5)
    end = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    ahead.close()
    assert made == [5, 6, 7]


def test_what_a_batch_raises_reaches_the_loop() -> None:
    def make(position: int) -> int:
        raise ValueError(f"no batch {position}")

    ahead = Prefetcher(make, 2)
    with pytest.raises(ValueError, match="no batch 5"):
        ahead.get(5)
    ahead.close()


def test_batches_are_made_in_another_thread() -> None:
    ahead = Prefetcher(lambda position: threading.current_thread().name, 1)
    assert ahead.get(0) != threading.current_thread().name
    ahead.close()


def test_a_nest_of_tensors_is_moved_whole() -> None:
    nest = {"a": [torch.zeros(2)], "b": (torch.ones(1), "word"), "c": BatchContext(0, 1, 2)}
    moved = to_device(nest, torch.device("meta"))
    assert moved["a"][0].device.type == moved["b"][0].device.type == "meta"
    assert moved["b"][1] == "word"
    assert isinstance(moved["c"], BatchContext)
    assert nest["a"][0].device.type == "cpu"


def test_shares_split_a_batch_and_draw_alike() -> None:
    shares = [BatchContext(3, 5, 12, rank, 4) for rank in range(4)]
    rows = [row for share in shares for row in range(12)[share.rows]]
    assert rows == list(range(12))
    draws = [torch.rand(3, generator=share.generator("x")) for share in shares]
    assert all(torch.equal(draw, draws[0]) for draw in draws)
    others = [BatchContext(3, 6, 12), BatchContext(4, 5, 12)]
    assert all(not torch.equal(torch.rand(3, generator=s.generator("x")), draws[0]) for s in others)
    assert shares[0].number("x") != shares[0].number("y")


# --------------------------------------------------------------------------- figures


def test_a_report_gives_means_and_begins_anew() -> None:
    report = Report()
    report.add({"loss": 1.0})
    report.add({"loss": 3.0, "part": 4.0})
    values = report.take(batch=8)
    assert values["loss"] == 2.0
    assert values["part"] == 2.0
    assert values["per_second"] > 0
    assert len(report) == 0


@given(st.integers(1, 50), st.integers(1, 300), st.integers(1, 200))
def test_every_multiple_is_crossed_once(batch: int, every: int, steps: int) -> None:
    hits = sum(crosses(batch * step, batch, every) for step in range(1, steps + 1))
    assert hits == len({batch * step // every for step in range(1, steps + 1)} - {0})


def test_what_is_not_finite_is_seen() -> None:
    assert finite(1e300)
    assert not any(map(finite, (math.inf, -math.inf, math.nan)))


def test_the_curve_and_the_table_hold_the_history() -> None:
    history = [
        {"step": 1.0, "samples": 8.0, "loss": 2.0},
        {"samples": 16.0, "loss": 1.0, "monitor_x": 0.5},
    ]
    assert table(history).decode().splitlines() == [
        "step,samples,loss,monitor_x", "1,8,2,", ",16,1,0.5",
    ]  # fmt: skip
    with Image.open(io.BytesIO(picture(history, "tiny"))) as falling:
        drawn = falling.convert("RGB")
    with Image.open(io.BytesIO(picture([], "tiny"))) as empty:
        assert drawn.tobytes() != empty.convert("RGB").tobytes()


def test_settings_that_do_not_change_the_weights_keep_the_digest() -> None:
    base = TrainingSettings(objective="reader", samples=1)
    same = TrainingSettings(objective="reader", samples=1, nice=3, pools=Path("x"), prefetch=0)
    other = TrainingSettings(objective="reader", samples=1, lr=0.5)
    longer = TrainingSettings(objective="reader", samples=2, minutes=1)
    assert base.digest(0) == same.digest(0) == longer.digest(0)
    assert [base.length, longer.length] == ["1 samples", "2 samples or 1 minutes"]
    assert len({base.digest(0), base.digest(1), other.digest(0)}) == 3
    assert TrainingSettings(minutes=2, hours=1).seconds == 120
    assert TrainingSettings(samples=2).seconds is None


def test_the_average_leaves_constants_alone() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, float("-inf")]), persistent=False)
    module.register_buffer("level", torch.tensor([1.0]))
    average = EMA(module, half_life=10)
    with torch.no_grad():
        module.level.fill_(3.0)
    for _ in range(3):
        average.update(module, 5)
    assert torch.equal(average.module.get_buffer("mask"), module.get_buffer("mask"))
    assert 1 < float(average.module.get_buffer("level")) <= 3


def test_the_best_weights_are_the_first_of_the_highest_score() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    best = BestWeights(first)
    assert best.score is None
    assert not best.restore(second)
    assert best.update(-0.25, first)
    assert not best.update(-0.25, second)  # a tie keeps what there is
    assert not best.update(-0.5, second)
    assert best.score == -0.25
    target = nn.Linear(2, 2)
    assert best.restore(target)
    assert torch.equal(target.weight, first.weight.half().float())
    assert torch.equal(target.bias, first.bias.half().float())
    assert best.update(-0.25 + 1e-9, second)
    assert best.score == pytest.approx(-0.25 + 1e-9, abs=1e-12)
    best.restore(target)
    assert torch.equal(target.weight, second.weight.half().float())


def test_a_training_of_another_model_does_not_go_on(tmp_path: Path) -> None:
    table = tiny.recipe(tmp_path, monitor_samples=0)
    tiny.run(table, stop_after=3)
    folder = tmp_path / "tiny"
    packed = checkpoint.read_newest(folder)
    assert packed is not None
    packed["model"]["head.weight"] = torch.zeros(1)
    checkpoint.write(folder, packed["step"] + 1, packed)
    with pytest.raises(CannotDo, match=r"release whose model had other parts.*head\.weight"):
        tiny.run(table)
