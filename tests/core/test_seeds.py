"""Seeds: a draw depends on the sample's seed and the draw's name alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.core.seeds import Seeds, read_seed, seed_at, written_seed
from guided.core.text import json_text
from guided.errors import RecipeError
from guided.tasks.base import TaskContext

SEEDS = st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 40), st.sampled_from(["normal", "uniform"]))
def test_a_row_is_the_same_in_every_batch(values: list[int], size: int, kind: str) -> None:
    batch = getattr(Seeds(tuple(values)), kind)((size,), "z")
    for row, value in enumerate(values):
        alone = getattr(Seeds((value,)), kind)((size,), "z")
        assert torch.equal(batch[row], alone[0])
    backwards = getattr(Seeds(tuple(reversed(values))), kind)((size,), "z")
    assert torch.equal(backwards.flip(0), batch)


def test_draws_do_not_depend_on_earlier_draws_or_global_state() -> None:
    seeds = Seeds.of(5, 3)
    first = seeds.normal((4, 4), "noise")
    torch.manual_seed(123)
    seeds.uniform((7,), "other")
    before = torch.get_rng_state()
    assert torch.equal(seeds.normal((4, 4), "noise"), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_names_and_seeds_give_other_numbers() -> None:
    rows = [Seeds.of(seed).normal((50,), name) for seed in range(6) for name in ("a", "b", "")]
    table = torch.cat(rows)
    correlation = torch.corrcoef(table) - torch.eye(len(table))
    assert float(correlation.abs().max()) < 0.75
    assert len({tuple(row.tolist()) for row in table}) == 18
    assert not torch.equal(Seeds.of(1).normal((3,), "1:a"), Seeds.of(11).normal((3,), "a"))


def test_the_distributions() -> None:
    normal = Seeds.of(0, 200).normal((500,), "x")
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.std()) - 1) < 0.01
    uniform = Seeds.of(0, 200).uniform((500,), "x")
    assert 0 <= float(uniform.min()) < 1e-3
    assert 0.999 < float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.005


def test_golden_numbers_of_seed_0() -> None:
    """The numbers recipes rely on.

    Made by: torch.Generator().manual_seed(first 8 bytes of sha256("0:z"), little-endian, 63 bits).
    """
    import hashlib

    seed = int.from_bytes(hashlib.sha256(b"0:z").digest()[:8], "little") & (2**63 - 1)
    wanted = torch.randn((3,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(Seeds.of(0).normal((3,), "z")[0], wanted)


def test_choosing_rows_and_counting() -> None:
    seeds = Seeds.of(10, 4)
    assert seeds.values == (10, 11, 12, 13)
    assert len(seeds) == 4
    assert seeds[1:3].values == (11, 12)
    assert seeds[[3, 0, 0]].values == (13, 10, 10)
    with pytest.raises(IndexError):
        seeds[[9]]


def test_no_seed_gives_an_empty_batch() -> None:
    assert Seeds(()).normal((2, 3), "x").shape == (0, 2, 3)
    assert Seeds(()).uniform((2,), "x").shape == (0, 2)


def test_drawn_on_the_cpu_then_moved() -> None:
    device = torch.device("meta")
    assert Seeds.of(0).normal((2,), "x", device).device == device
    assert Seeds.of(0).normal((2,), "x").device.type == "cpu"


@pytest.mark.parametrize("seed", [0, 2**53, 2**53 + 1, 2**63, 2**64 - 1])
def test_every_seed_is_read_from_both_of_its_forms(seed: int) -> None:
    assert read_seed(seed) == read_seed(written_seed(seed)) == seed
    assert isinstance(written_seed(seed), str) is (seed > 2**53)
    assert json.loads(json_text({"seed": seed, "more": [(seed,)]})) == {
        "seed": written_seed(seed), "more": [[written_seed(seed)]]
    }  # fmt: skip
    assert torch.isfinite(Seeds((seed,)).normal((3,), "z")).all()


@pytest.mark.parametrize(
    "value",
    [-1, 2**64, str(2**64), "7", "-1", "", "1e30", "٣" * 18, 7.0, True, None, "9" * 9999, 10**40],
)
def test_what_is_no_seed_is_refused_with_the_limit(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"whole number from 0 to 18446744073709551615") as caught:
        read_seed(value)
    assert len(str(caught.value)) < 200


def test_a_number_too_long_to_write_is_refused() -> None:
    with pytest.raises(RecipeError, match="seed = a larger number: must be a whole number"):
        read_seed(10**5000)


def test_after_the_last_seed_comes_0_again(caplog: pytest.LogCaptureFixture) -> None:
    last = 2**64 - 1
    assert Seeds.of(last, 3).values == (last, 0, 1)
    assert [seed_at(last, index) for index in (0, 1, 2**64)] == [last, 0, last]
    ctx = TaskContext(seed=last)
    assert ctx.seed_at(0) == last
    assert not caplog.messages
    assert [ctx.seed_at(index) for index in (1, 2)] == [0, 1]
    (told,) = caplog.messages
    assert "start again from 0" in told
