"""Saved and packed weights: error bounds, sizes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guided.errors import CannotDo, CorruptWeights, OutputError
from guided.zoo.headers import read_header
from guided.zoo.packing import load_weights, pack, save_weights, unpack


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=5),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_packing_errs_no_more_than_rounding_to_the_largest_value_of_each_channel(
    shape: list[int], scale: float, seed: int
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    packed = pack({"w": weight}, smallest=1)
    assert packed["w::int8"].dtype == torch.int8
    assert packed["w::int8"].shape == weight.shape
    assert packed["w::scale"].ndim == weight.ndim
    assert sum(n > 1 for n in packed["w::scale"].shape) <= 1
    lost = unpack(packed)["w"] - weight
    for axis, length in enumerate(shape):
        if packed["w::scale"].shape[axis] == length > 1:
            others = [other for other in range(len(shape)) if other != axis]
            step = weight.abs().amax(others, keepdim=True) / 127
            plain = ((weight / step).round() * step - weight).square().sum(others)
            slack = (weight.square().sum(others) * 1e-5) + 1e-30
            assert bool((lost.square().sum(others) <= 1.01 * plain + slack).all())


def test_channels_have_their_own_scale() -> None:
    weight = torch.stack([torch.linspace(-1, 1, 50), torch.linspace(-1, 1, 50) * 1e-4])
    back = unpack(pack({"w": weight}, smallest=1))["w"]
    for row in range(2):
        error = (back[row] - weight[row]).abs().max() / weight[row].abs().max()
        assert float(error) <= 0.51 / 127


def test_channels_are_those_of_the_axis_that_suits() -> None:
    columns = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    columns *= torch.tensor([1.0, 1e-2, 1e2, 1e-3])
    packed = pack({"w": columns, "v": columns.T.contiguous()}, smallest=1)
    assert packed["w::scale"].shape == (1, 4)
    assert packed["v::scale"].shape == (4, 1)
    filters = pack({"w": torch.randn(1, 3, 2, 3, 3)}, smallest=1)  # as StyleGAN2 keeps them
    assert sorted(filters["w::scale"].shape)[:4] == [1, 1, 1, 1]
    assert filters["w::scale"].numel() in (2, 3)


def test_named_tensors_stay_in_half_precision() -> None:
    weights = {"a": torch.randn(8, 8), "b": torch.randn(8, 8)}
    assert set(pack(weights, half=["a"], smallest=1)) == {"a", "b::int8", "b::scale"}
    with pytest.raises(CannotDo, match="No tensor is called 'c'"):
        pack(weights, half=["c"], smallest=1)


def test_a_zero_channel_stays_zero_and_extremes_are_exact() -> None:
    weight = torch.zeros(3, 8)
    weight[1, 2] = -4.0
    back = unpack(pack({"w": weight}, smallest=1))["w"]
    assert torch.allclose(back, weight, rtol=1e-3, atol=0)


def test_small_flat_and_whole_tensors_stay() -> None:
    given = {"bias": torch.ones(9000), "small": torch.ones(4, 4), "count": torch.ones(99, 99).int()}
    packed = pack(given)
    assert set(packed) == set(given)
    assert all(torch.equal(packed[name], given[name]) for name in given)


def test_saving_packed_weights_and_loading_them(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "conv.weight": torch.randn(64, 64, 3, 3, generator=generator),
        "conv.bias": torch.randn(64, generator=generator),
    }
    half = save_weights(tmp_path / "half.safetensors", weights, metadata={"recipe": "a.toml"})
    small = save_weights(tmp_path / "small.safetensors", pack(weights))
    assert read_header(half)[1] == {"recipe": "a.toml"}
    assert read_header(small)[0]["conv.weight::scale"]["dtype"] == "F16"
    assert small.stat().st_size < 0.52 * half.stat().st_size
    back = load_weights(small)
    assert set(back) == set(weights)
    relative = (back["conv.weight"] - weights["conv.weight"]).norm() / weights["conv.weight"].norm()
    assert float(relative) < 0.01
    assert load_weights(half)["conv.weight"].dtype == torch.float16
    assert torch.equal(load_weights(half)["conv.bias"], weights["conv.bias"].half())


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    one = {"b": torch.ones(2), "a": torch.arange(4)}
    two = {"a": torch.arange(8)[::2] // 2, "b": torch.ones(1).expand(2)}
    notes = {letter: letter for letter in "abcdefgh"}
    first = save_weights(tmp_path / "1.safetensors", one, metadata=notes)
    second = save_weights(tmp_path / "2.safetensors", two, metadata=dict(reversed(notes.items())))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("dtype", "wanted"), [("fp32", "F32"), ("fp16", "F16"), ("bf16", "BF16")])
def test_the_stored_type(tmp_path: Path, dtype: str, wanted: str) -> None:
    file = save_weights(tmp_path / "a.safetensors", {"w": torch.ones(2).double()}, dtype)  # type: ignore[arg-type]
    assert read_header(file)[0]["w"]["dtype"] == wanted


def test_unfit_values_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(CannotDo, match="'w' has values that are NaN or infinite"):
        save_weights(file, {"w": torch.tensor([1.0, float("nan")])})
    with pytest.raises(CannotDo, match=r"'w' has values too large for fp16\. Store it as bf16"):
        save_weights(file, {"w": torch.tensor([70000.0])})
    with pytest.raises(CannotDo, match="NaN or infinite"):
        pack({"w": torch.full((2, 2), float("inf"))})
    with pytest.raises(CannotDo, match="'w::int8' is packed already"):
        pack(pack({"w": torch.ones(2, 2)}, smallest=1))
    assert not file.exists()
    with pytest.raises(OutputError):
        save_weights(tmp_path / "none" / "a.safetensors", {"w": torch.ones(1)})


def test_incomplete_packing_is_refused() -> None:
    packed = pack({"w": torch.ones(3, 4)}, smallest=1)
    with pytest.raises(CorruptWeights, match="'w' has no fitting scales"):
        unpack({"w::int8": packed["w::int8"]})
    whole, flat = packed["w::int8"], torch.ones(3, 1)
    for scale in (torch.ones(2), torch.ones(3, 4), torch.ones(1, 3), flat.double(), -flat,
                  flat.int(), flat / 0, flat * float("nan"), torch.ones(3, 1, 1)):  # fmt: skip
        with pytest.raises(CorruptWeights, match="'w' has no fitting scales"):
            unpack({"w::int8": whole, "w::scale": scale})
    with pytest.raises(CorruptWeights, match="'w' has no fitting scales"):
        unpack({"w::int8": whole.int(), "w::scale": flat})
    with pytest.raises(CorruptWeights, match="'w' has no fitting scales"):
        unpack({**packed, "w": torch.ones(3, 4)})
    assert set(unpack({"x::scale": torch.ones(1)})) == {"x::scale"}


def test_scales_of_the_first_axis_alone_are_read_as_version_0_1_0_wrote_them() -> None:
    whole = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8)
    back = unpack({"w::int8": whole, "w::scale": torch.tensor([10.0, 1.0])})["w"]
    assert back.tolist() == [[10, 20], [3, 4]]
