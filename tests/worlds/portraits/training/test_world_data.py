from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.errors import CannotDo, OutputError
from guided.training.lock import claim
from guided.training.objective import BatchContext
from guided.worlds.portraits import KEYS, VALUES, draw, sample
from guided.worlds.portraits.training import world_data
from guided.worlds.portraits.training.pictures import Pictures
from guided.worlds.portraits.training.world_data import (
    ABSENT,
    SHARD,
    WINDOW,
    Pool,
    codes_of,
    draw_missing,
)

SIZE, COUNT = 32, 24


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A drawn pool of three shards of eight pictures."""
    folder = tmp_path_factory.mktemp("pool")
    draw_missing(folder, "val", SIZE, 100, COUNT, 8, os.getppid())
    return Pool(folder, "val", SIZE, 100, COUNT, 8)


def test_rows_are_the_portraits_of_their_seeds(pool: Pool) -> None:
    drawn = pool.take([0, 7, 8, 23, 3])
    assert drawn.seeds.tolist() == [100, 107, 108, 123, 103]
    for row, seed in enumerate(drawn.seeds):
        portrait = sample(int(seed), "val")
        assert np.array_equal(drawn.pixels[row], np.asarray(draw(portrait, SIZE)))
        assert drawn.codes[row].tolist() == codes_of(portrait)
        assert drawn.visible[row].tolist() == [portrait.visible()[key] for key in KEYS]
        assert sample(int(drawn.seeds[row]), "val") == portrait


def test_codes_name_the_values() -> None:
    for seed in range(40):
        portrait = sample(seed)
        for key, code in zip(KEYS, codes_of(portrait), strict=True):
            value = portrait.attributes[key]
            assert value == (None if code == ABSENT else VALUES[key][code])


def test_rows_outside_are_refused(pool: Pool) -> None:
    with pytest.raises(CannotDo, match="outside the pool of 24"):
        pool.take([24])


def test_pictures_are_the_pool_as_tensors(pool: Pool) -> None:
    rows = np.array([5, 20, 1])
    for where in ("disk", "device"):
        drawn, pictures = Pictures(pool, torch.device("cpu"), where).take(rows)
        assert pictures.shape == (3, 3, SIZE, SIZE)
        assert pictures.dtype == torch.uint8
        assert pictures.is_contiguous(memory_format=torch.channels_last)
        expected = pool.take(rows)
        assert np.array_equal(pictures.permute(0, 2, 3, 1).numpy(), expected.pixels)
        assert drawn.codes.tolist() == expected.codes.tolist()


def test_workers_draw_what_is_missing_and_a_second_pool_shares_it(tmp_path: Path) -> None:
    first = Pool.open(tmp_path, seed=3, split="test", size=SIZE, count=6, workers=1)
    assert first.wait() == 0
    first.close()
    files = sorted(first.folder.glob("*.npy"))
    before = [file.stat().st_mtime_ns for file in files]
    second = Pool.open(tmp_path, seed=3, split="test", size=SIZE, count=6, workers=1)
    assert second.folder == first.folder
    assert second.missing() == []
    assert np.array_equal(second.take([2]).pixels[0], np.asarray(draw(sample(5, "test"), SIZE)))
    assert [file.stat().st_mtime_ns for file in files] == before
    assert not list(first.folder.glob(".*.part"))


def test_a_cut_off_shard_is_drawn_again(tmp_path: Path) -> None:
    (tmp_path / ".00000.pixels.part").write_bytes(b"half")
    draw_missing(tmp_path, "val", SIZE, 0, 2, 2, os.getppid())
    pool = Pool(tmp_path, "val", SIZE, 0, 2, 2)
    assert pool.missing() == []
    assert pool.take([1]).seeds.tolist() == [1]


def test_workers_that_died_are_told_of(tmp_path: Path) -> None:
    pool = Pool.open(tmp_path, seed=0, split="val", size=SIZE, count=SHARD, workers=1)
    for worker in pool._workers:
        worker.kill()
    with pytest.raises(CannotDo, match=r"ended with \[-9\] before shard 0 was there"):
        pool.take([0])
    pool.close()


def test_a_shard_that_another_training_held_and_left_is_drawn_on(tmp_path: Path) -> None:
    pool = Pool(tmp_path, "val", SIZE, 0, 4, 2)
    with claim(tmp_path / ".00000.lock") as mine:
        assert mine
        pool._start(1)
        assert pool._workers[0].wait(timeout=60) == 0
    assert pool.missing() == [0]
    assert pool.take([1]).seeds.tolist() == [1]
    pool.close()


def test_nobody_draws_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    draw_missing(tmp_path, "val", SIZE, 0, 2, 2, parent=-1)
    assert not list(tmp_path.glob("*.npy"))


def test_waiting_can_be_given_up(tmp_path: Path) -> None:
    pool = Pool(tmp_path, "val", SIZE, 0, 16, 8)
    began = time.monotonic()
    assert pool.wait(seconds=0.3) == 2
    assert time.monotonic() - began < 2


def test_two_workers_never_draw_the_same_shard(tmp_path: Path) -> None:
    with claim(tmp_path / ".00000.lock") as mine:
        assert mine
        draw_missing(tmp_path, "val", SIZE, 0, 2, 2, os.getppid())
        assert not list(tmp_path.glob("*.npy"))
    draw_missing(tmp_path, "val", SIZE, 0, 2, 2, os.getppid())
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_a_pool_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"needs \d+\.\d GB more.*fewer pictures"):
        Pool.open(tmp_path, size=1024, count=10**6, workers=0)


def test_another_size_is_another_pool() -> None:
    assert world_data.fingerprint(32) != world_data.fingerprint(64)
    assert world_data.fingerprint(32) == world_data.fingerprint(32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 3))
def test_every_visit_shows_each_row_of_its_window_once(
    seed: int, windows: int, repeats: int
) -> None:
    window, size = WINDOW * SHARD, 4096
    each = window // size
    for visit in range(windows * repeats):
        seen = [
            world_data.shuffled_rows(windows * window, seed, visit * each + i, size, repeats)
            for i in range(each)
        ]
        rows = np.sort(np.concatenate(seen))
        start = visit // repeats * window
        assert np.array_equal(rows, np.arange(start, start + window))


def test_batches_are_a_function_of_seed_and_position_and_differ() -> None:
    def rows(seed: int, position: int) -> list[int]:
        return world_data.shuffled_rows(64, seed, position, 16, 2).tolist()

    assert rows(0, 9) == rows(0, 9)
    assert rows(0, 9) != rows(1, 9)
    orders = {tuple(rows(0, position)) for position in range(40)}
    assert len(orders) == 40
    later = [world_data.shuffled_rows(4 * WINDOW * SHARD, 0, p, SHARD)[0] for p in range(16, 32)]
    assert sorted({int(row) // (WINDOW * SHARD) for row in later}) == [0, 1, 2, 3]


def test_processes_take_their_rows_of_one_batch(pool: Pool) -> None:
    whole = pool.rows(0, 3, 12)
    parts = [pool.rows(0, 3, 12, BatchContext(0, 3, 12, rank, 3).rows) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_batch_larger_than_a_window_is_refused() -> None:
    with pytest.raises(CannotDo, match="batch of 65 is larger than the 64 pictures"):
        world_data.shuffled_rows(64, 0, 0, 65)
